"""Qwen3 (Yang et al. 2025), the dense ones: Llama with a norm over each head of queries and keys."""

from __future__ import annotations

from typing import Any

from slm.models.config import ModelConfig
from slm.registry import register_family
from slm.weights.families.family import Family
from slm.weights.families.llama import llama_table, read_llama_like, write_llama_like
from slm.weights.foreign_config import ForeignConfig


def _read_config(theirs: ForeignConfig) -> dict[str, Any]:
    window = theirs.get("sliding_window", 4096) if theirs.get("use_sliding_window", False) else None
    if window is not None:
        theirs.only("max_window_layers", 0, default=28)  # the first layers would see everything
    return read_llama_like(theirs, head_dim=128, qk_norm=True, sliding_window=window)


def _write_config(config: ModelConfig) -> dict[str, Any]:
    window = config.modules.transformer.sliding_window
    sliding = {"use_sliding_window": window is not None, "sliding_window": window, "max_window_layers": 0}
    return {**write_llama_like(config), **(sliding if window else {"use_sliding_window": False})}


@register_family("qwen3")
def qwen3() -> Family:
    """Qwen3, the dense sizes."""
    return Family(
        model_type="qwen3",
        architecture="Qwen3ForCausalLM",
        read_config=_read_config,
        write_config=_write_config,
        table=llama_table,
        base_prefix="model.",
        head="lm_head.weight",
    )
