"""What GGUF (ggml-org/ggml `docs/gguf.md`) calls our families and their tensors, and the order in which rows lie."""

from slm.models.config import ModelConfig
from slm.weights.name_table import SAME, Entry, Layout, Table

# ``general.architecture``, of the family that Hugging Face calls so; Mistral's files say llama
ARCHITECTURES = {"gpt2": "gpt2", "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gptneox": "gpt_neox"}
FUSED_QKV = ("gpt2", "gptneox")  # one matrix of all queries, all keys, all values, as ours
_PERMUTED = ("llama",)  # llama.cpp turns pairs i and i + 1 there
_NAMES = {
    "token_embedding": "token_embd",
    "position_embedding": "position_embd",
    "transformer.final_norm": "output_norm",
    "output_projection": "output",
}
_NAMES_IN_BLOCK = {
    "attention_norm": "attn_norm",
    "attention.qkv": "attn_qkv",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "attention.out_proj": "attn_output",
    "mlp_norm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_table(architecture: str, family_table: Table, config: ModelConfig) -> list[Entry]:
    """GGUF's names for the tensors of a model of this shape, given the table of its family (`Family.table`); matrices
    are (out, in), GPT-2's, too."""
    shape = config.modules.transformer
    rows = tuple(shape.head_dim * heads for heads in (shape.n_heads, shape.n_kv_heads, shape.n_kv_heads))
    turned = _pairs_together(shape.head_dim) if architecture in _PERMUTED else SAME
    table = []
    for entry in family_table:
        module, _, kind = entry.ours.rpartition(".")
        name = gguf_name(module)
        if module.endswith("attention.qkv") and architecture not in FUSED_QKV:
            names = tuple(f"{name.replace('attn_qkv', f'attn_{part}')}.{kind}" for part in "qkv")
            table.append(Entry(entry.ours, names, (turned, turned, SAME), rows))
        else:
            table.append(Entry(entry.ours, (f"{name}.{kind}",), padded=entry.padded))
    return table


def gguf_name(module: str) -> str:
    """GGUF's name of a module of ours: ``transformer.blocks.3.mlp.up_proj`` is ``blk.3.ffn_up``."""
    blocks = "transformer.blocks."
    if not module.startswith(blocks):
        return _NAMES[module]
    layer, _, inside = module.removeprefix(blocks).partition(".")
    return f"blk.{layer}.{_NAMES_IN_BLOCK[inside]}"


def _pairs_together(head_dim: int) -> Layout:
    """Of rows of queries or keys: pairs that turn together lie side by side in theirs, half a head apart in ours."""
    half = head_dim // 2
    return Layout(
        lambda theirs: theirs.unflatten(0, (-1, half, 2)).transpose(1, 2).flatten(0, 2),
        lambda ours: ours.unflatten(0, (-1, 2, half)).transpose(1, 2).flatten(0, 2),
    )
