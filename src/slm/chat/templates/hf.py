"""Any chat template of Hugging Face's kind: the tokenizer's own, or a Jinja file."""

from __future__ import annotations

from pathlib import Path

from slm.chat.template import ChatTemplate
from slm.errors import UserError
from slm.registry import register_template
from slm.tokenizers.base import Tokenizer


@register_template("hf")
def hf(tokenizer: Tokenizer, file: str | None = None) -> ChatTemplate:
    """The template in `file`, else the one that came with the tokenizer.

    Special tokens that it spells must be in the vocabulary; text that looks like one is text otherwise.

    Raises:
        UserError: there is none, or the file cannot be read.
    """
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
