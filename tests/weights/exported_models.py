"""Small models of every kind of part, and a tokenizer, for exports."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.tokenizers.bpe import BpeTokenizer

TEXT = "def main(self):\n    return self.x[12] + 345  # it's naïve\n\nThe cat sat on the mat, and 日本語 🙂.\n"
LLAMA = {"norm": "rms_norm", "bias": False, "qkv_bias": False, "mlp": "glu", "activation": "silu", "n_kv_heads": 2}
QWEN3 = {**LLAMA, "qk_norm": True, "head_dim": 24}
NEOX = {"activation": "gelu_tanh", "parallel_residual": True}
GPT2 = {"activation": "gelu_tanh"}


def tokenizer(split: str = "qwen2") -> BpeTokenizer:
    return BpeTokenizer.create([TEXT] * 9, vocab_size=300, min_frequency=1, split=split)  # type: ignore[arg-type]


def shape(transformer: dict[str, Any], position: str = "rotary", **modules: Any) -> ModelConfig:
    sizes = {"dim": 64, "n_layers": 2, "n_heads": 4}
    rotary = modules.pop("rotary", None)
    kind = {"kind": position, **({"rotary": rotary} if rotary else {})}
    return ModelConfig.from_dict(
        {
            "name": "gpt",
            "params": {"max_seq_len": 48, "vocab_size": tokenizer().vocab_size},
            "modules": {"transformer": {**sizes, **transformer}, "position_embedding": kind, **modules},
        }
    )


def model(config: ModelConfig) -> nn.Module:
    """Random weights of such sizes that every part shows in the logits."""
    torch.manual_seed(0)
    built = build_model(config).eval()
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            scale = 1.0 if parameter.dim() == 1 else 2 * parameter.shape[-1] ** -0.5
            parameter.copy_(0.3 * scale * torch.randn(parameter.shape) + float("norm" in name and "weight" in name))
    return built
