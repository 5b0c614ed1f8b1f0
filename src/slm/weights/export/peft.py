"""What LoRA trained, alone, as a folder that `peft` lays beside its base model of `transformers`."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from slm.errors import UserError
from slm.files.writing import new_folder
from slm.models.config import ModelConfig
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.hf_files import save_huggingface
from slm.tokenizers.load import is_missing
from slm.weights.fine_tuning import Lora
from slm.weights.hugging_face import tensor_table
from slm.weights.name_table import TRANSPOSED

_PREFIX = "base_model.model."  # of all names
_IN_LAYER = 3  # parts of a module's name ahead of its own: model.layers.0, transformer.h.0


def write_peft(
    folder: Path, config: ModelConfig, lora: Lora, state: Mapping[str, Tensor], tokenizer: Tokenizer, base: str
) -> None:
    """Write the ``lora_a`` and ``lora_b`` of `state`, a model's of the shape `config`, and the tokenizer, which may
    have a chat template; `base` is the name or folder of the weights beside which they were trained. `UserError` if
    modules were trained whole."""
    if lora.also_train:
        raise UserError(
            f"to=peft: adapter.also_train={list(lora.also_train)} trained these whole, which is more than an adapter; "
            "to=hf writes the model with all of it"
        )
    entries = {entry.ours: entry for entry in tensor_table(config)}
    tensors: dict[str, Tensor] = {}
    targets: dict[str, None] = {}  # in order, each once
    transposed = False
    for path in sorted(name.removesuffix(".lora_a") for name in state if name.endswith(".lora_a")):
        entry, a, b = entries[f"{path}.weight"], state[f"{path}.lora_a"], state[f"{path}.lora_b"]
        transposed = TRANSPOSED in entry.layouts
        rows = b.split(entry.rows) if entry.rows else [b]
        for name, layout, piece in zip(entry.theirs, entry.layouts, rows, strict=True):
            module = name.removesuffix(".weight")
            outputs = piece if transposed else layout.to_theirs(piece)
            tensors[f"{_PREFIX}{module}.lora_A.weight"] = a.clone()
            tensors[f"{_PREFIX}{module}.lora_B.weight"] = outputs.clone()
            targets[".".join(module.split(".")[_IN_LAYER:])] = None
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "use_rslora": lora.rslora,
        "lora_dropout": lora.dropout,
        "target_modules": list(targets),
        "fan_in_fan_out": transposed,  # GPT-2's matrices are (in, out)
        "bias": "none",
    }
    with new_folder(folder) as partial:
        (partial / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, partial / "adapter_model.safetensors", metadata={"format": "pt"})
        if not is_missing(tokenizer):
            save_huggingface(tokenizer, partial, config.params.max_seq_len)
        for file in partial.iterdir():
            file.chmod(0o644)  # safetensors makes it its owner's alone
