#!/usr/bin/env bash
# A chat template that asks whether a message's content is none finds it undefined instead, and reasoning twice.
#
# transformers 5.23.0. apply_chat_template gives a template its messages without the keys whose value is None, so that
# `message.content is none`, by which published templates tell a call of tools without words, is false, and so is
# `message.content is defined`; and a message with "thinking" comes with "reasoning_content" beside it. What was given:
# role, content (None), thinking, tool_calls. What the template saw: role, reasoning_content, thinking, tool_calls.
# Expected by most: a template is given the messages as they are. One that reads `message['content'] is none` takes
# the other branch than in the library's version 4, or than in any other renderer of the same template.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 jinja2==3.1.6
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
import transformers
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

assert transformers.__version__ == "5.23.0"
words = models.WordLevel({"a": 0}, unk_token="a")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words))
tokenizer.chat_template = (
    "{{ messages[0].content is none }} {{ messages[0].content is defined }} {{ messages[0].keys() | sort | join(',') }}"
)
call = {"type": "function", "function": {"name": "now", "arguments": {}}}
message = {"role": "assistant", "content": None, "thinking": "what time is it?", "tool_calls": [call]}
seen = tokenizer.apply_chat_template([message], tokenize=False)
print(seen)
assert seen == "False False reasoning_content,role,thinking,tool_calls", "messages arrive otherwise now"
PY
