"""What a chat template is, and how a tokenizer comes to carry one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from slm.chat.renderer import ChatRenderer
from slm.errors import UserError
from slm.registry import TEMPLATES
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.extended import ExtendedTokenizer


@dataclass(frozen=True)
class ChatTemplate:
    """How a conversation is written as text."""

    source: str  # Jinja, as Hugging Face's ``chat_template``
    special_tokens: tuple[str, ...] = ()  # spellings in it that must be single tokens; a vocabulary may lack them


def with_template(tokenizer: Tokenizer, kind: str, file: str | None = None) -> Tokenizer:
    """`tokenizer` with the chat template called `kind`, and the special tokens that this needs.

    Args:
        tokenizer: any; one that has the template already is returned as it is.
        kind: in the registry: ``alpaca``, ``chatml``, ``hf``, …
        file: for ``hf``: a Jinja file, in place of the tokenizer's own template.

    Raises:
        UserError: there is no such template, or it does not go with the tokenizer.
    """
    make: Callable[..., ChatTemplate] = TEMPLATES.get(kind)
    if file is not None and kind != "hf":
        raise UserError(f"task.template_file is read by task.template=hf only; template is {kind}: leave it out")
    template = make(tokenizer, file) if kind == "hf" else make(tokenizer)
    missing = [token for token in template.special_tokens if token not in tokenizer.special_tokens]
    if not missing and tokenizer.chat_template == template.source:
        return tokenizer
    extended = ExtendedTokenizer(tokenizer, missing, template.source)
    if isinstance(tokenizer, ExtendedTokenizer):  # of weights that were trained on conversations before
        extended = ExtendedTokenizer(tokenizer.inner, [*tokenizer.added, *missing], template.source)
    ends = dict.fromkeys((*extended.also_ends, *ChatRenderer(extended).end_ids))
    extended.also_ends = tuple(end for end in ends if end != tokenizer.eos_id)
    return extended


def beginning(tokenizer: Tokenizer) -> str:
    """What a template writes ahead of a conversation: ``{{ bos_token }}`` where a vocabulary's texts begin with one."""
    return "{{ bos_token }}" if tokenizer.begin_ids else ""
