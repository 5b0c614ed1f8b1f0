#!/usr/bin/env bash
# add_special_tokens=False does not keep the post-processor of a tokenizer out: it still moves the places of tokens.
#
# tokenizers 0.23.3. GPT-2's tokenizer.json has a ByteLevel post-processor, whose trim_offsets=True takes spaces off the
# offsets of the tokens that hold them. It adds no special token, and yet it runs when encode is asked for none
# (add_special_tokens=False), so a token " b" of the text "a b" says that it begins at 2, and offsets do not cover the
# text. Whoever asks which token holds a given character, to mask a loss for instance, finds none for the space. Seen:
# [(0, 1), (2, 3)] with the post-processor, [(0, 1), (1, 3)] with none; the ids are the same.
# Expected by most: the post-processor is what adds special tokens, and is out of the way without them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3
"$folder/venv/bin/python" - <<'PY'
import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

assert tokenizers.__version__ == "0.23.3"
vocabulary = {"a": 0, "b": 1, "Ġ": 2, "Ġb": 3}
tokenizer = Tokenizer(models.BPE(vocabulary, [("Ġ", "b")]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
plain = tokenizer.encode("a b", add_special_tokens=False)
tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
trimmed = tokenizer.encode("a b", add_special_tokens=False)
print(plain.ids, plain.offsets, trimmed.ids, trimmed.offsets)
assert plain.ids == trimmed.ids == [0, 3]
assert plain.offsets == [(0, 1), (1, 3)]
assert trimmed.offsets == [(0, 1), (2, 3)], "the post-processor no longer runs, or no longer trims"
PY
