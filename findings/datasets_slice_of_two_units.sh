#!/usr/bin/env bash
# A slice of a split whose ends have different units is read in percent at both ends.
#
# datasets 5.2.0. "train[1:50%]" of 4 rows gives rows 0 and 1: the 1 is taken for 1 %, which rounds to row 0. Seen too:
# "train[50%:3]" gives no row at all, from row 2 to "3 %", row 0; "train[1:3]" gives rows 1 and 2, as it says. No error,
# no warning. Expected by most: from row 1 up to half, or a refusal of two units in one slice.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
import datasets

assert datasets.__version__ == "5.2.0"
rows = datasets.Dataset.from_dict({"number": [0, 1, 2, 3]})
rows.to_json("rows.jsonl")
seen = {}
for split in ("train[1:3]", "train[1:50%]", "train[50%:3]"):
    found = datasets.load_dataset("json", data_files="rows.jsonl", split=split, cache_dir="cache")
    seen[split] = found["number"][:]
    print(split, seen[split])
assert seen == {"train[1:3]": [1, 2], "train[1:50%]": [0, 1], "train[50%:3]": []}, "the two units are told apart now"
PY
