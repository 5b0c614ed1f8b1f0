"""Llama's family (Touvron et al. 2023): SmolLM2, TinyLlama, Llama 2 and 3, and dense Qwen3 (Yang et al. 2025)."""

from typing import Any

from slm.models.config import ModelConfig
from slm.registry import register_family
from slm.weights.families.family import Family, ForeignConfig, Setting, whole_table, with_bias
from slm.weights.name_table import Entry


def llama_table(config: ModelConfig) -> list[Entry]:
    """Names of Llama and its relatives; queries, keys and values lie apart, ours in one."""
    shape = config.modules.transformer
    rows = tuple(shape.head_dim * heads for heads in (shape.n_heads, shape.n_kv_heads, shape.n_kv_heads))
    table = []
    for layer in range(shape.n_layers):
        ours, theirs = f"transformer.blocks.{layer}", f"model.layers.{layer}"
        for kind in ("weight", "bias") if shape.qkv_bias else ("weight",):
            names = tuple(f"{theirs}.self_attn.{part}_proj.{kind}" for part in "qkv")
            table.append(Entry(f"{ours}.attention.qkv.{kind}", names, rows=rows))
        table += with_bias(f"{ours}.attention.out_proj", f"{theirs}.self_attn.o_proj", bool(shape.out_proj_bias))
        for part in ("q_norm", "k_norm") if shape.qk_norm else ():
            table += with_bias(f"{ours}.attention.{part}", f"{theirs}.self_attn.{part}", False)
        for part in ("gate_proj", "up_proj", "down_proj"):
            table += with_bias(f"{ours}.mlp.{part}", f"{theirs}.mlp.{part}", bool(shape.mlp_bias))
        table += with_bias(f"{ours}.attention_norm", f"{theirs}.input_layernorm", False)
        table += with_bias(f"{ours}.mlp_norm", f"{theirs}.post_attention_layernorm", False)
    table += with_bias("transformer.final_norm", "model.norm", False)
    return whole_table(config, "model.embed_tokens.weight", table, "lm_head.weight")


def llama_like(head_dim: Any, fixed: dict[str, Any], **own: Any) -> Family:
    """What Llama's relatives share, the `head_dim` by default, what is `fixed` besides, and its `own` attributes."""
    return Family(
        settings=(
            Setting("hidden_size", "dim", "count", 4096),
            Setting("num_hidden_layers", "n_layers", "count", 32),
            Setting("num_attention_heads", "n_heads", "count", 32),
            Setting("num_key_value_heads", "n_kv_heads", "count", lambda read: read["n_heads"]),
            Setting("head_dim", "head_dim", "count", head_dim),
            Setting("attention_bias", "out_proj_bias", "flag", False),
            Setting("attention_bias", "qkv_bias", "flag", False),
            Setting("intermediate_size", "mlp_dim", "count"),
            Setting("hidden_act", "activation", "activation", "silu"),
            Setting("rms_norm_eps", "norm_eps", "number", 1e-6),
        ),
        table=llama_table,
        base_prefix="model.",
        head="lm_head.weight",
        rotary=("rope_theta",),
        fixed={"mlp": "glu", "mlp_bias": False, "bias": False, "norm": "rms_norm", **fixed},
        written={"attention_dropout": 0.0},
        **own,
    )


def _read_more(theirs: ForeignConfig) -> dict[str, Any]:
    if theirs.count("hidden_size", 4096) % theirs.count("num_attention_heads", 32):
        theirs.problems.append("a hidden_size that num_attention_heads does not divide")  # transformers refuses it too
    return {"mlp_bias": theirs.flag("mlp_bias", False)}


@register_family("llama")
def llama() -> Family:
    """Llama, SmolLM2, TinyLlama."""
    return llama_like(
        lambda read: max(read["dim"] // read["n_heads"], 1),
        {},
        model_type="llama",
        architecture="LlamaForCausalLM",
        buffers=(".rotary_emb.inv_freq",),
        only={"pretraining_tp": 1},
        read_more=_read_more,
        write_more=lambda config: {"mlp_bias": config.modules.transformer.mlp_bias},
    )


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
