#!/usr/bin/env bash
# GGUFWriter writes no key for an empty list or an empty text, and does not say so.
#
# gguf 0.19.0. Of add_array("tokenizer.ggml.merges", []) and add_string("general.description", "") nothing is in the
# file; add_bool of False and add_uint32 of 0 are. A BPE of characters alone has no merges, and its file then lacks the
# key that readers ask for. Seen: the keys of the file are general.architecture, is, zero beside the reader's own.
# Expected by most: a key with an array of length 0, which the format has, or an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gguf==0.19.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version

from gguf import GGUFReader, GGUFWriter

assert version("gguf") == "0.19.0"
writer = GGUFWriter("empty.gguf", "gpt2")
writer.add_array("tokenizer.ggml.merges", [])
writer.add_string("general.description", "")
writer.add_bool("is", False)
writer.add_uint32("zero", 0)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
keys = sorted(name for name in GGUFReader("empty.gguf").fields if not name.startswith("GGUF."))
print(keys)
assert keys == ["general.architecture", "is", "zero"], "what is empty is written now"
PY
