"""GPT-NeoX (Black et al. 2022): Pythia. Parallel residual, rotary positions on a part of each head."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from slm.models.config import ModelConfig
from slm.registry import register_family
from slm.weights.families.family import Family, model_values, with_bias
from slm.weights.foreign_config import ForeignConfig, foreign_activation, foreign_scaling
from slm.weights.name_table import Entry, Layout

_MODULES = {
    "attention.dense": "attention.out_proj",
    "mlp.dense_h_to_4h": "mlp.up_proj",
    "mlp.dense_4h_to_h": "mlp.down_proj",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "mlp_norm",
}


def _read_config(theirs: ForeignConfig) -> dict[str, Any]:
    bias = theirs.flag("attention_bias", True)
    transformer = {
        "dim": theirs.count("hidden_size"),
        "n_layers": theirs.count("num_hidden_layers"),
        "n_heads": theirs.count("num_attention_heads"),
        "qkv_bias": bias,
        "out_proj_bias": bias,
        "mlp_dim": theirs.count("intermediate_size"),
        "activation": theirs.activation("hidden_act", "gelu"),
        "parallel_residual": theirs.flag("use_parallel_residual", True),
        "norm_eps": theirs.number("layer_norm_eps", 1e-5),
    }
    return model_values(
        theirs.count("max_position_embeddings", 2048),
        theirs.count("vocab_size"),
        {"kind": "rotary", "rotary": theirs.rotary("rotary_emb_base", "rotary_pct", 0.25)},
        transformer,
        theirs.flag("tie_word_embeddings", False),
    )


def _write_config(config: ModelConfig) -> dict[str, Any]:
    shape, rotary = config.modules.transformer, config.to_dict()["modules"]["position_embedding"]["rotary"]
    return {
        "hidden_size": shape.dim,
        "intermediate_size": shape.mlp_dim,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "attention_bias": shape.qkv_bias,
        "hidden_act": foreign_activation(shape.activation, "gelu_pytorch_tanh"),
        "max_position_embeddings": config.params.max_seq_len,
        "layer_norm_eps": shape.norm_eps,
        "use_parallel_residual": shape.parallel_residual,
        "rotary_emb_base": rotary["base"],
        "rotary_pct": rotary["fraction"],
        "rope_scaling": foreign_scaling(rotary["scaling"]),
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
    }


def _by_head(n_heads: int, head_dim: int) -> Layout:
    """Theirs holds query, key and value of one head together; ours all queries, all keys, all values."""

    def to_ours(theirs: Tensor) -> Tensor:
        return theirs.unflatten(0, (n_heads, 3, head_dim)).transpose(0, 1).flatten(0, 2)

    def to_theirs(ours: Tensor) -> Tensor:
        return ours.unflatten(0, (3, n_heads, head_dim)).transpose(0, 1).flatten(0, 2)

    return Layout(to_ours, to_theirs)


def _table(config: ModelConfig) -> list[Entry]:
    shape = config.modules.transformer
    by_head = _by_head(shape.n_heads, shape.head_dim)
    table = [Entry("token_embedding.weight", ("gpt_neox.embed_in.weight",), padded=True)]
    for layer in range(shape.n_layers):
        ours, theirs = f"transformer.blocks.{layer}", f"gpt_neox.layers.{layer}"
        qkv = (f"{ours}.attention.qkv", f"{theirs}.attention.query_key_value")
        table += with_bias(*qkv, shape.qkv_bias, layout=by_head)
        for their_name, our_name in _MODULES.items():
            bias = bool(shape.out_proj_bias) if our_name == "attention.out_proj" else True
            table += with_bias(f"{ours}.{our_name}", f"{theirs}.{their_name}", bias)
    table += with_bias("transformer.final_norm", "gpt_neox.final_layer_norm", True)
    if not config.modules.output_projection.tie_weights:
        table.append(Entry("output_projection.weight", ("embed_out.weight",), padded=True))
    return table


@register_family("gpt_neox")
def gpt_neox() -> Family:
    """GPT-NeoX and Pythia."""
    return Family(
        model_type="gpt_neox",
        architecture="GPTNeoXForCausalLM",
        read_config=_read_config,
        write_config=_write_config,
        table=_table,
        base_prefix="gpt_neox.",
        head="embed_out.weight",
        buffers=(".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"),
    )
