"""GPT-2 (Radford et al. 2019), as Hugging Face stores it: matrices as (in, out)."""

from slm.models.config import ModelConfig
from slm.registry import register_family
from slm.weights.families.family import Family, Setting, whole_table, with_bias
from slm.weights.name_table import SAME, TRANSPOSED, Entry

_MATRICES = {
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out_proj",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
}
_NORMS = {"ln_1": "attention_norm", "ln_2": "mlp_norm"}
_SETTINGS = (
    Setting("n_embd", "dim", "count", 768),
    Setting("n_layer", "n_layers", "count", 12),
    Setting("n_head", "n_heads", "count", 12),
    Setting("n_inner", "mlp_dim", "count", lambda read: 4 * read["dim"]),
    Setting("activation_function", "activation", "activation", "gelu_new"),
    Setting("layer_norm_epsilon", "norm_eps", "number", 1e-5),
)


def _table(config: ModelConfig) -> list[Entry]:
    table = [Entry("position_embedding.weight", ("transformer.wpe.weight",))]
    for layer in range(config.modules.transformer.n_layers):
        ours, theirs = f"transformer.blocks.{layer}", f"transformer.h.{layer}"
        for kind, layout in (("weight", TRANSPOSED), ("bias", SAME)):
            table += [Entry(f"{ours}.{o}.{kind}", (f"{theirs}.{t}.{kind}",), layout) for t, o in _MATRICES.items()]
        for their_name, our_name in _NORMS.items():
            table += with_bias(f"{ours}.{our_name}", f"{theirs}.{their_name}", True)
    table += with_bias("transformer.final_norm", "transformer.ln_f", True)
    return whole_table(config, "transformer.wte.weight", table, "lm_head.weight")


@register_family("gpt2")
def gpt2() -> Family:
    """GPT-2, DistilGPT-2 and others of its form."""
    return Family(
        model_type="gpt2",
        architecture="GPT2LMHeadModel",
        settings=_SETTINGS,
        table=_table,
        base_prefix="transformer.",
        head="lm_head.weight",
        buffers=(".attn.bias", ".attn.masked_bias"),
        length=("n_positions", 1024),
        vocab_size=50257,
        tied=True,
        fixed={"mlp": "mlp", "norm": "layer_norm", "bias": True, "qkv_bias": True},
        only={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
        written=dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        gelu_tanh="gelu_new",
        write_more=lambda config: {"n_ctx": config.params.max_seq_len},  # which readers of its first form look for
    )
