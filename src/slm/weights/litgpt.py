"""A checkpoint of litgpt (Lightning-AI/litgpt `litgpt/config.py`, `model.py`): ``lit_model.pth`` beside
``model_config.yaml``."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slm.files.reading import read_yaml_object
from slm.models.config import ModelConfig
from slm.weights.families.family import ForeignConfig, with_bias
from slm.weights.name_table import SAME, Entry, Layout, Table
from slm.weights.pretrained import stored_config
from slm.weights.tensor_source import TensorSource
from slm.weights.torch_files import read_torch_file, tensors_of

WEIGHTS, CONFIG = "lit_model.pth", "model_config.yaml"
_MLPS = {"GptNeoxMLP": "mlp", "LLaMAMLP": "glu", "GemmaMLP": "glu"}
_NORMS = {"LayerNorm": "layer_norm", "RMSNorm": "rms_norm"}
_ONLY = {  # what our model cannot follow otherwise
    **{"scale_embeddings": False, "lm_head_bias": False, "n_expert": 0, "shared_attention_norm": False},
    **{
        "post_attention_norm": False,
        "post_mlp_norm": False,
        "sliding_window_size": None,
        "norm_1": True,
        "norm_2": True,
    },
    **{"attention_logit_softcapping": None, "attention_scores_scalar": None, "latent_attention": None},
    **{"rope_local_base_freq": None, "rope_interleave": False, "norm_qk_type": "default"},
}


def read_litgpt(folder: Path) -> tuple[ModelConfig, Table, TensorSource]:
    """The shape, and the tensors under the table's names; `UserError` if a file is missing or damaged, or asks what
    our model cannot."""
    file = folder / CONFIG
    values = read_yaml_object(file)
    mlp, norm = values.get("mlp_class_name", "GptNeoxMLP"), values.get("norm_class_name", "LayerNorm")
    theirs = ForeignConfig(values, str(file))
    for key, value in _ONLY.items():
        if values.get(key) is not None:
            theirs.only(key, value)
    for key, value, known in (("mlp_class_name", mlp, _MLPS), ("norm_class_name", norm, _NORMS)):
        if value not in known:
            theirs.problems.append(f"{key}={value!r} (known: {', '.join(known)})")
    if norm == "RMSNorm" and "gemma" in str(values.get("name")).lower():
        theirs.problems.append("Gemma's norm, whose weights are an offset from 1")
    dim, heads = theirs.count("n_embd", 4096), theirs.count("n_head", 32)
    head_dim = theirs.count("head_size", max(dim // heads, 1))
    bias = theirs.flag("bias", True)
    rope = {"base": theirs.number("rope_base", 10000), "fraction": theirs.number("rotary_percentage", 0.25)}
    ratio = theirs.number("rope_condense_ratio", 1)
    longest = theirs.count("block_size", 4096)
    scaling = _scaling(theirs, longest) or ({"kind": "linear", "factor": ratio} if ratio != 1 else None)
    softcap = theirs.number("final_logit_softcapping", 1) if values.get("final_logit_softcapping") else None
    gelu = "gelu_tanh" if values.get("gelu_approximate") == "tanh" else "gelu"
    content = read_torch_file(folder / WEIGHTS)
    source = tensors_of(content.get("model", content) if isinstance(content, dict) else content, folder / WEIGHTS)
    shape: dict[str, Any] = {
        "dim": dim,
        "n_layers": theirs.count("n_layer", 16),
        "n_heads": heads,
        "n_kv_heads": theirs.count("n_query_groups", heads),
        "head_dim": head_dim,
        "mlp_dim": theirs.count("intermediate_size", 4 * dim if mlp == "GptNeoxMLP" else None),
        "mlp": _MLPS.get(mlp, "mlp"),
        "activation": "silu" if mlp == "LLaMAMLP" else gelu,
        "norm": _NORMS.get(norm, "layer_norm"),
        "norm_eps": theirs.number("norm_eps", 1e-5),
        "bias": bias or norm == "LayerNorm",
        "qkv_bias": theirs.flag("attn_bias", False) or bias,
        "out_proj_bias": bias,
        "mlp_bias": bias,
        "qk_norm": theirs.flag("norm_qk", False),
        "parallel_residual": theirs.flag("parallel_residual", True),
    }
    theirs.stop_if_any()
    ours = {
        "name": "gpt",
        "params": {
            "max_seq_len": longest,
            "vocab_size": source.shapes.get("transformer.wte.weight", (theirs.count("padded_vocab_size"),))[0],
            "vocab_multiple": 1,
        },
        "modules": {
            "position_embedding": {"kind": "rotary", "rotary": {**rope, "scaling": scaling}},
            "transformer": shape,
            "output_projection": {"tie_weights": "lm_head.weight" not in source.stored, "softcap": softcap},
        },
    }
    config = stored_config(ours, str(file))
    return config, _table(config, any(".attn.attn." in name for name in source.stored)), source


def _scaling(theirs: ForeignConfig, longest: int) -> dict[str, Any] | None:
    """Llama 3's: the one that ``rope_adjustments`` can say."""
    given = theirs.get("rope_adjustments")
    if given is None:
        return None
    if not isinstance(given, dict) or given.keys() & {"beta_fast", "beta_slow", "mscale", "mscale_all_dim"}:
        theirs.problems.append(f"rope_adjustments={given!r} (only Llama 3's can be followed)")
        return None
    inside = ForeignConfig(given, theirs.where, theirs.problems, "rope_adjustments.")
    names = ("factor", "low_freq_factor", "high_freq_factor")
    original = inside.count("original_max_seq_len", longest)
    return {"kind": "llama3", "original_max_seq_len": original, **{name: inside.number(name) for name in names}}


def _table(config: ModelConfig, is_by_group: bool) -> Table:
    shape = config.modules.transformer
    layer_norm = shape.norm == "layer_norm"
    modules = {"attn.proj": ("attention.out_proj", bool(shape.out_proj_bias))}
    theirs_of_mlp = ("fc_1", "fc_2", "proj") if shape.mlp == "glu" else ("fc", "proj")
    ours_of_mlp = ("gate_proj", "up_proj", "down_proj")[3 - len(theirs_of_mlp) :]
    modules |= {f"mlp.{t}": (f"mlp.{o}", bool(shape.mlp_bias)) for t, o in zip(theirs_of_mlp, ours_of_mlp, strict=True)}
    modules |= {"norm_1": ("attention_norm", layer_norm), "norm_2": ("mlp_norm", layer_norm)}
    if shape.qk_norm:
        modules |= {f"attn.norm_{part}": (f"attention.{part}_norm", layer_norm) for part in "qk"}
    qkv, layout = ("attn.attn", _by_group(config)) if is_by_group else ("attn.qkv", SAME)
    table = [Entry("token_embedding.weight", ("transformer.wte.weight",))]
    for layer in range(shape.n_layers):
        ours, theirs = f"transformer.blocks.{layer}", f"transformer.h.{layer}"
        table += with_bias(f"{ours}.attention.qkv", f"{theirs}.{qkv}", shape.qkv_bias, layout=layout)
        for their_name, (our_name, bias) in modules.items():
            table += with_bias(f"{ours}.{our_name}", f"{theirs}.{their_name}", bias)
    table += with_bias("transformer.final_norm", "transformer.ln_f", layer_norm)
    if not config.modules.output_projection.tie_weights:
        table.append(Entry("output_projection.weight", ("lm_head.weight",)))
    return table


def _by_group(config: ModelConfig) -> Layout:
    """Until version 0.5 each key head lay between its queries and its value; ours are all queries, all keys, all
    values."""
    shape = config.modules.transformer
    groups, width = shape.n_kv_heads, shape.head_dim
    heads = (shape.n_heads // groups, 1, 1)

    def to_ours(theirs: Tensor) -> Tensor:
        parts = theirs.unflatten(0, (groups, sum(heads), width)).split(heads, dim=1)
        return torch.cat([part.flatten(0, 2) for part in parts])

    def to_theirs(ours: Tensor) -> Tensor:
        parts = ours.split([groups * each * width for each in heads])
        return torch.cat([part.unflatten(0, (groups, -1, width)) for part in parts], dim=1).flatten(0, 2)

    return Layout(to_ours, to_theirs)
