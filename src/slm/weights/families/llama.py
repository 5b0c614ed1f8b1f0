"""Llama's family (Touvron et al. 2023): SmolLM2, TinyLlama, Llama 2 and 3."""

from __future__ import annotations

from typing import Any

from slm.models.config import ModelConfig
from slm.registry import register_family
from slm.weights.families.family import Family, model_values, with_bias
from slm.weights.foreign_config import ForeignConfig, foreign_activation, foreign_scaling
from slm.weights.name_table import Entry


def read_llama_like(theirs: ForeignConfig, head_dim: int | None = None, **more: Any) -> dict[str, Any]:
    """The nested values of a `ModelConfig` from what Llama's relatives share.

    Args:
        theirs: the configuration.
        head_dim: the family's default; None for dim / n_heads.
        more: the family's own settings of the transformer.
    """
    dim, n_heads = theirs.count("hidden_size", 4096), theirs.count("num_attention_heads", 32)
    bias = theirs.flag("attention_bias", False)
    transformer = {
        "dim": dim,
        "n_layers": theirs.count("num_hidden_layers", 32),
        "n_heads": n_heads,
        "n_kv_heads": theirs.count("num_key_value_heads", n_heads),
        "head_dim": theirs.count("head_dim", head_dim or max(dim // n_heads, 1)),
        "qkv_bias": bias,
        "out_proj_bias": bias,
        "mlp": "glu",
        "mlp_dim": theirs.count("intermediate_size"),
        "activation": theirs.activation("hidden_act", "silu"),
        "mlp_bias": False,
        "bias": False,
        "norm": "rms_norm",
        "norm_eps": theirs.number("rms_norm_eps", 1e-6),
        **more,
    }
    return model_values(
        theirs.count("max_position_embeddings", 2048),
        theirs.count("vocab_size"),
        {"kind": "rotary", "rotary": theirs.rotary("rope_theta")},
        transformer,
        theirs.flag("tie_word_embeddings", False),
    )


def write_llama_like(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `read_llama_like`."""
    shape, rotary = (
        config.to_dict()["modules"]["transformer"],
        config.to_dict()["modules"]["position_embedding"]["rotary"],
    )
    return {
        "hidden_size": shape["dim"],
        "intermediate_size": shape["mlp_dim"],
        "num_hidden_layers": shape["n_layers"],
        "num_attention_heads": shape["n_heads"],
        "num_key_value_heads": shape["n_kv_heads"],
        "head_dim": shape["head_dim"],
        "hidden_act": foreign_activation(shape["activation"], "gelu_pytorch_tanh"),
        "max_position_embeddings": config.params.max_seq_len,
        "rms_norm_eps": shape["norm_eps"],
        "attention_bias": shape["qkv_bias"],
        "attention_dropout": 0.0,
        "rope_theta": rotary["base"],
        "rope_scaling": foreign_scaling(rotary["scaling"]),
    }


def llama_table(config: ModelConfig) -> list[Entry]:
    """Names of Llama and its relatives; queries, keys and values lie apart, ours in one."""
    shape = config.modules.transformer
    rows = tuple(shape.head_dim * heads for heads in (shape.n_heads, shape.n_kv_heads, shape.n_kv_heads))
    table = [Entry("token_embedding.weight", ("model.embed_tokens.weight",), padded=True)]
    for layer in range(shape.n_layers):
        ours, theirs = f"transformer.blocks.{layer}", f"model.layers.{layer}"
        for kind in ("weight", "bias") if shape.qkv_bias else ("weight",):
            names = tuple(f"{theirs}.self_attn.{part}_proj.{kind}" for part in "qkv")
            table.append(Entry(f"{ours}.attention.qkv.{kind}", names, rows=rows))
        table += with_bias(f"{ours}.attention.out_proj", f"{theirs}.self_attn.o_proj", bool(shape.out_proj_bias))
        if shape.qk_norm:
            table += [
                Entry(f"{ours}.attention.{part}_norm.weight", (f"{theirs}.self_attn.{part}_norm.weight",))
                for part in "qk"
            ]
        for part in ("gate_proj", "up_proj", "down_proj"):
            table += with_bias(f"{ours}.mlp.{part}", f"{theirs}.mlp.{part}", bool(shape.mlp_bias))
        table.append(Entry(f"{ours}.attention_norm.weight", (f"{theirs}.input_layernorm.weight",)))
        table.append(Entry(f"{ours}.mlp_norm.weight", (f"{theirs}.post_attention_layernorm.weight",)))
    table.append(Entry("transformer.final_norm.weight", ("model.norm.weight",)))
    if not config.modules.output_projection.tie_weights:
        table.append(Entry("output_projection.weight", ("lm_head.weight",), padded=True))
    return table


def _read_config(theirs: ForeignConfig) -> dict[str, Any]:
    theirs.only("pretraining_tp", 1)
    if theirs.count("hidden_size", 4096) % theirs.count("num_attention_heads", 32):
        theirs.problems.append("a hidden_size that num_attention_heads does not divide")  # transformers refuses it too
    return read_llama_like(theirs, mlp_bias=theirs.flag("mlp_bias", False))


def _write_config(config: ModelConfig) -> dict[str, Any]:
    return {**write_llama_like(config), "mlp_bias": config.modules.transformer.mlp_bias}


@register_family("llama")
def llama() -> Family:
    """Llama, SmolLM2, TinyLlama."""
    return Family(
        model_type="llama",
        architecture="LlamaForCausalLM",
        read_config=_read_config,
        write_config=_write_config,
        table=llama_table,
        base_prefix="model.",
        head="lm_head.weight",
        buffers=(".rotary_emb.inv_freq",),
    )
