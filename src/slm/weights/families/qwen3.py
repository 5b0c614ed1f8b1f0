"""Qwen3 (Yang et al. 2025), the dense ones: Llama with a norm over each head of queries and keys."""

from __future__ import annotations

from typing import Any

from slm.models.config import ModelConfig
from slm.registry import register_family
from slm.weights.families.family import Family
from slm.weights.families.llama import llama_like
from slm.weights.foreign_config import ForeignConfig


def _window(theirs: ForeignConfig) -> int | None:
    """The window of all layers; None if all see everything. That some slide and others do not is noted."""
    if not theirs.flag("use_sliding_window", False) or theirs.values.get("sliding_window", 4096) is None:
        return None
    kinds = theirs.get("layer_types")
    if kinds is None:
        first = theirs.get("max_window_layers", 28)
        slide, see_all = first == 0, isinstance(first, int) and first >= theirs.count("num_hidden_layers", 32)
    else:  # as version 5 of transformers writes it; it comes first
        slide, see_all = (
            isinstance(kinds, list) and all(kind == name for kind in kinds)
            for name in ("sliding_attention", "full_attention")
        )
    if not (slide or see_all):
        theirs.problems.append("layers with a sliding window beside layers without (layer_types, max_window_layers)")
    return theirs.count("sliding_window", 4096) if slide else None


def _write_window(config: ModelConfig) -> dict[str, Any]:
    window = config.modules.transformer.sliding_window
    if not window:
        return {"use_sliding_window": False}
    return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}


@register_family("qwen3")
def qwen3() -> Family:
    """Qwen3, the dense sizes."""
    return llama_like(
        128,
        {"qk_norm": True},
        model_type="qwen3",
        architecture="Qwen3ForCausalLM",
        read_more=lambda theirs: {"sliding_window": _window(theirs)},
        write_more=_write_window,
    )
