"""What a chat template is, those that there are, and how a tokenizer comes to carry one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.chat.renderer import ChatRenderer
from slm.errors import UserError
from slm.registry import TEMPLATES, register_template
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.extended import ExtendedTokenizer

_CHATML = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'assistant' -%}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{%- else -%}{{ message['content'] + '<|im_end|>' }}{%- endif -%}"
    "{{ '\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


@dataclass(frozen=True)
class ChatTemplate:
    """How a conversation is written as text."""

    source: str  # Jinja, as Hugging Face's ``chat_template``
    special_tokens: tuple[str, ...] = ()  # spellings in it that must be single tokens; a vocabulary may lack them


@register_template("chatml")
def chatml(tokenizer: Tokenizer) -> ChatTemplate:
    """OpenAI's (2023): every message between two special tokens, headed by its role; a vocabulary that lacks them gets
    two tokens more, and a model that exists grows rows for them."""
    return ChatTemplate(_beginning(tokenizer) + _CHATML, ("<|im_start|>", "<|im_end|>"))


@register_template("alpaca")
def alpaca(tokenizer: Tokenizer) -> ChatTemplate:
    """Stanford's (Taori et al. 2023): headings in plain text, so no vocabulary needs new tokens; the end of text ends
    each response. A message may carry `instruction` and `input` apart, as records of its form do; then the input has a
    heading."""
    source = Path(__file__).with_name("alpaca.jinja").read_text(encoding="utf-8")
    return ChatTemplate(_beginning(tokenizer) + source.strip())


@register_template("hf")
def hf(tokenizer: Tokenizer, file: str | None = None) -> ChatTemplate:
    """Any of Hugging Face's kind: the one in `file`, else the one that came with the tokenizer. Special tokens that it
    spells must be in the vocabulary; text that looks like one is text otherwise. Raises `UserError` if there is no
    template, or the file cannot be read."""
    if file is None:
        if tokenizer.chat_template is None:
            raise UserError(
                f"task.template=hf: the tokenizer ({tokenizer.kind}) brings no chat template; give a Jinja file "
                "(task.template_file=…) or take template=alpaca or chatml"
            )
        return ChatTemplate(tokenizer.chat_template)
    try:
        return ChatTemplate(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"task.template_file: cannot read '{file}' as text ({error})") from None


def _beginning(tokenizer: Tokenizer) -> str:
    """``{{ bos_token }}`` where a vocabulary's texts begin with one."""
    return "{{ bos_token }}" if tokenizer.begin_ids else ""


def with_template(
    tokenizer: Tokenizer, kind: str, file: str | None = None, args: Mapping[str, Any] | None = None
) -> Tokenizer:
    """`tokenizer` with the chat template of the registry called `kind`, the special tokens that this needs, and what it
    is given beside messages: `args`, over what the tokenizer's own was given before; itself if it has them. `file`, for
    ``hf``, is a Jinja file in place of the tokenizer's own template. `UserError` if there is no such template, or it
    does not go with the tokenizer."""
    make: Callable[..., ChatTemplate] = TEMPLATES.get(kind)
    if file is not None and kind != "hf":
        raise UserError(f"task.template_file is read by task.template=hf only; template is {kind}: leave it out")
    template = make(tokenizer, file) if kind == "hf" else make(tokenizer)
    missing = [token for token in template.special_tokens if token not in tokenizer.special_tokens]
    is_own = tokenizer.chat_template == template.source
    given = {**(tokenizer.template_args if is_own else {}), **(args or {})}
    if not missing and is_own and given == tokenizer.template_args:
        return tokenizer
    extended = ExtendedTokenizer(tokenizer, missing, template.source, template_args=given)
    if isinstance(tokenizer, ExtendedTokenizer):  # of weights that were trained on conversations before
        added = [*tokenizer.added, *missing]
        extended = ExtendedTokenizer(tokenizer.inner, added, template.source, template_args=given)
    ends = dict.fromkeys((*extended.also_ends, *ChatRenderer(extended, template_args=args).end_ids))
    extended.also_ends = tuple(end for end in ends if end != tokenizer.eos_id)
    return extended
