"""Stanford Alpaca's prompt (Taori et al. 2023): headings in plain text, so no vocabulary needs new tokens."""

from __future__ import annotations

from slm.chat.template import ChatTemplate, beginning
from slm.registry import register_template
from slm.tokenizers.base import Tokenizer

# A message may carry `instruction` and `input` apart, as records of Alpaca's form do; then the input has a heading.
_SOURCE = r"""
{%- if messages[0]['role'] != 'system' -%}
    {%- if messages[0]['input'] -%}
        {{ 'Below is an instruction that describes a task, paired with an input that provides further context. ' }}
    {%- else -%}
        {{ 'Below is an instruction that describes a task. ' }}
    {%- endif -%}
    {{ 'Write a response that appropriately completes the request.\n\n' }}
{%- endif -%}
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}
        {{ message['content'] + '\n\n' }}
    {%- elif message['role'] == 'user' -%}
        {%- if message['input'] -%}
            {{ '### Instruction:\n' + message['instruction'] + '\n\n### Input:\n' + message['input'] + '\n\n' }}
        {%- else -%}
            {{ '### Instruction:\n' + message['content'] + '\n\n' }}
        {%- endif -%}
    {%- elif message['role'] == 'assistant' -%}
        {{ '### Response:\n' + message['content'] + eos_token }}
        {%- if not loop.last -%}{{ '\n\n' }}{%- endif -%}
    {%- else -%}
        {{ raise_exception('alpaca knows the roles system, user and assistant; got ' + message['role']) }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '### Response:\n' }}{%- endif -%}
"""


@register_template("alpaca")
def alpaca(tokenizer: Tokenizer) -> ChatTemplate:
    """Each response ends with the tokenizer's end of text."""
    return ChatTemplate(beginning(tokenizer) + _SOURCE.strip())
