"""GPT-2 (Radford et al. 2019), as Hugging Face stores it: matrices as (in, out)."""

from __future__ import annotations

from typing import Any

from slm.models.config import ModelConfig
from slm.registry import register_family
from slm.weights.families.family import Family, model_values, with_bias
from slm.weights.foreign_config import ForeignConfig, foreign_activation
from slm.weights.name_table import SAME, TRANSPOSED, Entry

MATRICES = {
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out_proj",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}
NORMS = {"ln_1": "attention_norm", "ln_2": "mlp_norm"}


def _read_config(theirs: ForeignConfig) -> dict[str, Any]:
    theirs.only("scale_attn_weights", True)
    theirs.only("scale_attn_by_inverse_layer_idx", False)
    theirs.only("add_cross_attention", False)
    dim = theirs.count("n_embd", 768)
    transformer = {
        "dim": dim,
        "n_layers": theirs.count("n_layer", 12),
        "n_heads": theirs.count("n_head", 12),
        "mlp_dim": theirs.count("n_inner", 4 * dim),
        "activation": theirs.activation("activation_function", "gelu_new"),
        "norm_eps": theirs.number("layer_norm_epsilon", 1e-5),
    }
    return model_values(
        theirs.count("n_positions", 1024),
        theirs.count("vocab_size", 50257),
        {"kind": "learned"},
        transformer,
        theirs.flag("tie_word_embeddings", True),
    )


def _write_config(config: ModelConfig) -> dict[str, Any]:
    shape = config.modules.transformer
    return {
        "n_embd": shape.dim,
        "n_layer": shape.n_layers,
        "n_head": shape.n_heads,
        "n_inner": shape.mlp_dim,
        "n_positions": config.params.max_seq_len,
        "activation_function": foreign_activation(shape.activation, "gelu_new"),
        "layer_norm_epsilon": shape.norm_eps,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    }


def _table(config: ModelConfig) -> list[Entry]:
    table = [
        Entry("token_embedding.weight", ("transformer.wte.weight",), padded=True),
        Entry("position_embedding.weight", ("transformer.wpe.weight",)),
    ]
    for layer in range(config.modules.transformer.n_layers):
        ours, theirs = f"transformer.blocks.{layer}", f"transformer.h.{layer}"
        for kind, layout in (("weight", TRANSPOSED), ("bias", SAME)):
            table += [Entry(f"{ours}.{o}.{kind}", (f"{theirs}.{t}.{kind}",), layout) for t, o in MATRICES.items()]
        for their_name, our_name in NORMS.items():
            table += with_bias(f"{ours}.{our_name}", f"{theirs}.{their_name}", True)
    table += with_bias("transformer.final_norm", "transformer.ln_f", True)
    if not config.modules.output_projection.tie_weights:
        table.append(Entry("output_projection.weight", ("lm_head.weight",), padded=True))
    return table


@register_family("gpt2")
def gpt2() -> Family:
    """GPT-2, DistilGPT-2 and others of its form."""
    return Family(
        model_type="gpt2",
        architecture="GPT2LMHeadModel",
        read_config=_read_config,
        write_config=_write_config,
        table=_table,
        base_prefix="transformer.",
        head="lm_head.weight",
        buffers=(".attn.bias", ".attn.masked_bias"),
    )
