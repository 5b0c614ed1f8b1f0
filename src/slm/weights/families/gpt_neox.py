"""GPT-NeoX (Black et al. 2022): Pythia. Parallel residual, rotary positions on a part of each head."""

from slm.models.config import ModelConfig
from slm.registry import register_family
from slm.weights.families.family import Family, Setting, whole_table, with_bias
from slm.weights.name_table import Entry, Layout

_MODULES = {
    "attention.dense": "attention.out_proj",
    "mlp.dense_h_to_4h": "mlp.up_proj",
    "mlp.dense_4h_to_h": "mlp.down_proj",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "mlp_norm",
}
_SETTINGS = (
    Setting("hidden_size", "dim", "count"),
    Setting("num_hidden_layers", "n_layers", "count"),
    Setting("num_attention_heads", "n_heads", "count"),
    Setting("attention_bias", "out_proj_bias", "flag", True),
    Setting("attention_bias", "qkv_bias", "flag", True),
    Setting("intermediate_size", "mlp_dim", "count"),
    Setting("hidden_act", "activation", "activation", "gelu"),
    Setting("use_parallel_residual", "parallel_residual", "flag", True),
    Setting("layer_norm_eps", "norm_eps", "number", 1e-5),
)


def _table(config: ModelConfig) -> list[Entry]:
    shape = config.modules.transformer
    by_head = Layout(  # theirs holds query, key and value of one head together; ours all queries, all keys, all values
        lambda theirs: theirs.unflatten(0, (shape.n_heads, 3, shape.head_dim)).transpose(0, 1).flatten(0, 2),
        lambda ours: ours.unflatten(0, (3, shape.n_heads, shape.head_dim)).transpose(0, 1).flatten(0, 2),
    )
    table = []
    for layer in range(shape.n_layers):
        ours, theirs = f"transformer.blocks.{layer}", f"gpt_neox.layers.{layer}"
        qkv = (f"{ours}.attention.qkv", f"{theirs}.attention.query_key_value")
        table += with_bias(*qkv, shape.qkv_bias, layout=by_head)
        for their_name, our_name in _MODULES.items():
            bias = bool(shape.out_proj_bias) if our_name == "attention.out_proj" else True
            table += with_bias(f"{ours}.{our_name}", f"{theirs}.{their_name}", bias)
    table += with_bias("transformer.final_norm", "gpt_neox.final_layer_norm", True)
    return whole_table(config, "gpt_neox.embed_in.weight", table, "embed_out.weight")


@register_family("gpt_neox")
def gpt_neox() -> Family:
    """GPT-NeoX and Pythia."""
    return Family(
        model_type="gpt_neox",
        architecture="GPTNeoXForCausalLM",
        settings=_SETTINGS,
        table=_table,
        base_prefix="gpt_neox.",
        head="embed_out.weight",
        buffers=(".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"),
        rotary=("rotary_emb_base", "rotary_pct", 0.25),
        fixed={"mlp": "mlp", "norm": "layer_norm", "bias": True},
        written={"attention_dropout": 0.0, "hidden_dropout": 0.0},
    )
