"""ChatML (OpenAI 2023): every message between two special tokens, headed by its role."""

from __future__ import annotations

from slm.chat.template import ChatTemplate, beginning
from slm.registry import register_template
from slm.tokenizers.base import Tokenizer

START, END = "<|im_start|>", "<|im_end|>"

_SOURCE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


@register_template("chatml")
def chatml(tokenizer: Tokenizer) -> ChatTemplate:
    """Two tokens more for a vocabulary that has none of them; a model that exists grows rows for them."""
    return ChatTemplate(beginning(tokenizer) + _SOURCE, (START, END))
