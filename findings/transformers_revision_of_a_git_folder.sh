#!/usr/bin/env bash
# The revision of a model in a git folder is not looked at: whatever is checked out is loaded, under any name.
#
# transformers 5.23.0, huggingface_hub 2.4.0. A clone of a model repository with the branches main and early, whose
# config.json differ: from_pretrained(folder, revision="early") gives main's, and revision="no-such-branch" gives the same,
# without an error or a warning. Expected by most: the named state, as it is given for a name on the hub, where the same
# argument selects a branch, a tag or a commit, or an error; so that a loop over the checkpoints of a cloned repository
# does not measure one of them again and again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 huggingface_hub==2.4.0
mkdir "$folder/model"
cd "$folder/model"
git init --quiet --initial-branch=main
state() {
    printf '{"model_type": "gpt2", "n_embd": %s, "n_head": 1, "n_layer": 1}' "$1" > config.json
    git add config.json
    git -c user.name=Someone -c user.email=someone@example.org commit --quiet -m "$1"
}
state 16
git branch early
state 32
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder/model" <<'PY'
import subprocess
import sys

import transformers

assert transformers.__version__ == "5.23.0"
folder = sys.argv[1]
early = subprocess.check_output(["git", "-C", folder, "show", "early:config.json"], text=True)
assert '"n_embd": 16' in early
found = {name: transformers.AutoConfig.from_pretrained(folder, revision=name).n_embd
         for name in ("main", "early", "no-such-branch")}
print(found)
assert found == {"main": 32, "early": 32, "no-such-branch": 32}, "a revision of a folder is heeded now"
PY
