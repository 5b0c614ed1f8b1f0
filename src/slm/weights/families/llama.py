"""Llama's family (Touvron et al. 2023): SmolLM2, TinyLlama, Llama 2 and 3; Mistral (Jiang et al. 2023); Qwen2, Qwen2.5
(Yang et al. 2024) and dense Qwen3 (Yang et al. 2025)."""

from collections.abc import Sequence
from typing import Any

from slm.models.config import ModelConfig
from slm.registry import register_family
from slm.weights.families.family import Family, ForeignConfig, Setting, whole_table, with_bias
from slm.weights.name_table import Entry

_SLIDING, _FULL = "sliding_attention", "full_attention"  # kinds of layers


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
    biases = ("out_proj_bias", "qkv_bias")
    return Family(
        settings=(
            Setting("hidden_size", "dim", "count", 4096),
            Setting("num_hidden_layers", "n_layers", "count", 32),
            Setting("num_attention_heads", "n_heads", "count", 32),
            Setting("num_key_value_heads", "n_kv_heads", "count", lambda read: read["n_heads"]),
            Setting("head_dim", "head_dim", "count", head_dim),
            *(Setting("attention_bias", bias, "flag", False) for bias in biases if bias not in fixed),
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


def _even_share(read: dict[str, Any]) -> int:
    return max(read["dim"] // read["n_heads"], 1)


def _read_more(theirs: ForeignConfig) -> dict[str, Any]:
    if theirs.count("hidden_size", 4096) % theirs.count("num_attention_heads", 32):
        theirs.problems.append("a hidden_size that num_attention_heads does not divide")  # transformers refuses it too
    return {"mlp_bias": theirs.flag("mlp_bias", False)}


@register_family("llama")
def llama() -> Family:
    """Llama, SmolLM2, TinyLlama."""
    return llama_like(
        _even_share,
        {},
        model_type="llama",
        architecture="LlamaForCausalLM",
        buffers=(".rotary_emb.inv_freq",),
        only={"pretraining_tp": 1},
        read_more=_read_more,
        write_more=lambda config: {"mlp_bias": config.modules.transformer.mlp_bias},
    )


def _window(theirs: ForeignConfig) -> dict[str, Any]:
    """The window, and the layers that see everything all the same."""
    if not theirs.flag("use_sliding_window", False) or theirs.values.get("sliding_window", 4096) is None:
        return {}
    kinds, n_layers = theirs.get("layer_types"), theirs.count("num_hidden_layers", 32)
    full: Sequence[int]
    if kinds is None:
        first = theirs.get("max_window_layers", 28)  # that slides
        full = [] if first == 0 else range(min(theirs.count("max_window_layers", 28), n_layers))
    else:  # as version 5 of transformers writes it; it comes first
        if not isinstance(kinds, list) or len(kinds) != n_layers or set(kinds) - {_SLIDING, _FULL}:
            theirs.problems.append(f"layer_types={kinds!r} (one of {_SLIDING} and {_FULL} a layer is expected)")
            return {}
        full = [layer for layer, kind in enumerate(kinds) if kind == _FULL]
    if len(full) == n_layers:
        return {}
    return {"sliding_window": theirs.count("sliding_window", 4096), "full_layers": tuple(full)}


def _write_window(config: ModelConfig) -> dict[str, Any]:
    shape = config.modules.transformer
    if not shape.sliding_window:
        return {"use_sliding_window": False}
    window = {"use_sliding_window": True, "sliding_window": shape.sliding_window}
    full = len(shape.full_layers)
    if shape.full_layers == tuple(range(full)):
        return {**window, "max_window_layers": full}
    return {**window, "layer_types": [_SLIDING if shape.window_of(i) else _FULL for i in range(shape.n_layers)]}


@register_family("qwen3")
def qwen3() -> Family:
    """Qwen3, the dense sizes."""
    return llama_like(
        128,
        {"qk_norm": True},
        length=("max_position_embeddings", 32768),
        model_type="qwen3",
        architecture="Qwen3ForCausalLM",
        read_more=_window,
        write_more=_write_window,
    )


@register_family("qwen2")
def qwen2() -> Family:
    """Qwen2 and Qwen2.5, the dense sizes, and others of their form."""
    return llama_like(
        _even_share,
        {"qkv_bias": True, "out_proj_bias": False},
        length=("max_position_embeddings", 32768),
        model_type="qwen2",
        architecture="Qwen2ForCausalLM",
        buffers=(".rotary_emb.inv_freq",),
        read_more=_window,
        write_more=_write_window,
    )


def _mistral_window(theirs: ForeignConfig) -> dict[str, Any]:
    """Its first files have one of 4,096 in all layers, what a file that says nothing means; later ones have null."""
    none = "sliding_window" in theirs.values and theirs.values["sliding_window"] is None
    return {"sliding_window": None if none else theirs.count("sliding_window", 4096)}


@register_family("mistral")
def mistral() -> Family:
    """Mistral 7B and others of its form."""
    return llama_like(
        _even_share,
        {"qkv_bias": False, "out_proj_bias": False},
        model_type="mistral",
        architecture="MistralForCausalLM",
        buffers=(".rotary_emb.inv_freq",),
        length=("max_position_embeddings", 4096 * 32),
        read_more=_mistral_window,
        write_more=lambda config: {"sliding_window": config.modules.transformer.sliding_window},  # one for all layers
    )
