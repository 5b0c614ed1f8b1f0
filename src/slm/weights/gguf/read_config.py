"""The shape of a model from a GGUF file's header, read as the ``config.json`` of its family."""

from dataclasses import asdict, replace
from typing import Any

import torch

from slm.errors import UserError
from slm.models.config import ModelConfig, RotaryScaling
from slm.models.modules.embeddings import frequencies
from slm.registry import FAMILIES
from slm.weights.families.family import Family, ForeignConfig
from slm.weights.gguf.names import ARCHITECTURES, gguf_table
from slm.weights.gguf.read_file import GgufFile
from slm.weights.name_table import Table
from slm.weights.pretrained import stored_config
from slm.weights.tensor_source import TensorSource

_KEYS = {  # of our transformer's settings
    "dim": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "n_kv_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "mlp_dim": "feed_forward_length",
    "parallel_residual": "use_parallel_residual",
}
_EPS = {"layer_norm": "attention.layer_norm_epsilon", "rms_norm": "attention.layer_norm_rms_epsilon"}
_SCALING = {
    "factor": "factor",
    "original_max_position_embeddings": "original_context_length",
    "attention_factor": "attn_factor",
    "beta_fast": "yarn_beta_fast",
    "beta_slow": "yarn_beta_slow",
}
_ROPE_FACTORS = "rope_freqs.weight"  # what llama3's scaling divides each frequency by; no key tells of it
_TRAINED_LENGTHS = [1 << power for power in (13, 12, 11, 14, 15, 10, 9, 8, 7, 6)]  # Llama 3's first
_TABLES_OF_LLAMA_CPP = (".attn_rot_embd", ".rotary_emb.inv_freq", ".attn.masked_bias", "rope_factors_")


def read_shape(opened: GgufFile) -> tuple[ModelConfig, Table, TensorSource]:
    """Our shape, GGUF's names for its tensors, and those; `UserError` for an architecture that slm has no family for,
    or what our model cannot follow."""
    architecture = opened.values.get("general.architecture")
    if architecture not in ARCHITECTURES:
        if "adapter.type" in opened.values:
            raise UserError(f"{opened.where} is an adapter alone; merge it into its model first (llama-export-lora)")
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"{opened.where}: architecture '{architecture}' is not one that slm can read (known: {known})")
    family: Family = FAMILIES.get(ARCHITECTURES[architecture])()
    theirs = ForeignConfig(_as_config(opened, architecture, family), opened.where)
    ours = family.read_config(theirs)
    theirs.stop_if_any()
    config = stored_config(ours, opened.where)
    if _ROPE_FACTORS in opened.tensors.stored:
        divisors = opened.tensors.read(_ROPE_FACTORS).float()
        ours["modules"]["position_embedding"]["rotary"]["scaling"] = _scaling(divisors, config)
        config = stored_config(ours, opened.where)
    kept = opened.tensors.renamed(lambda name: None if _is_table(name) else name)
    return config, gguf_table(architecture, family.table(config), config), kept


def _is_table(name: str) -> bool:
    return name == _ROPE_FACTORS or any(part in name for part in _TABLES_OF_LLAMA_CPP)


def _as_config(opened: GgufFile, architecture: str, family: Family) -> dict[str, Any]:
    said, shapes = opened.values, opened.tensors.shapes

    def get(key: str, default: Any = None) -> Any:
        value = said.get(f"{architecture}.{key}", default)
        if isinstance(value, list) and value and value == value[:1] * len(value):
            return value[0]  # alike in all layers
        return value

    keys = {**_KEYS, "norm_eps": _EPS[family.fixed["norm"]]}
    values = {setting.theirs: get(keys[setting.ours]) for setting in family.settings if setting.ours in keys}
    values[family.length[0]] = get("context_length")
    values["vocab_size"] = shapes.get("token_embd.weight", (None,))[0]
    values["tie_word_embeddings"] = "output.weight" not in shapes
    values["attention_bias"] = any(name.endswith("attn_output.bias") for name in shapes)
    dim, heads = get("embedding_length"), get("attention.head_count")
    if not (isinstance(dim, int) and isinstance(heads, int) and heads > 0):
        return values  # told as missing
    head_dim = get("attention.key_length", dim // heads)
    if "head_dim" in {setting.theirs for setting in family.settings}:
        values["head_dim"] = head_dim
    if family.rotary:
        base_key, *fraction_key = family.rotary[:2]
        values[base_key] = get("rope.freq_base")
        turned = get("rope.dimension_count", head_dim)
        if isinstance(turned, int) and isinstance(head_dim, int) and head_dim > 0:
            values[fraction_key[0] if fraction_key else "partial_rotary_factor"] = turned / head_dim
    kind = get("rope.scaling.type", "none")
    if kind != "none":
        scaling = {theirs: get(f"rope.scaling.{key}") for theirs, key in _SCALING.items()}
        if kind == "longrope":
            scaling |= _longrope(opened, scaling)
        values["rope_scaling"] = {"rope_type": kind, **{key: one for key, one in scaling.items() if one is not None}}
    return values


def _longrope(opened: GgufFile, said: dict[str, Any]) -> dict[str, Any]:
    """The divisors of frequencies, which are tensors; by a factor in the file llama.cpp divides once more, and without
    another it leaves cosines and sines as they are."""
    once_more = said["factor"] if isinstance(said["factor"], int | float) else 1.0
    names = {"short_factor": "rope_factors_short.weight", "long_factor": "rope_factors_long.weight"}
    factors = {
        theirs: (opened.tensors.read(name).float() * once_more).tolist()
        for theirs, name in names.items()
        if name in opened.tensors.stored
    }
    return {**factors, "factor": None, "attention_factor": said["attention_factor"] or 1.0}


def _scaling(divisors: torch.Tensor, config: ModelConfig) -> dict[str, Any] | None:
    """The scaling that these divisors (dim / 2,) of frequencies were made by: llama3's where its formula gives them,
    else themselves, at any length; None if they are all 1."""
    if bool((divisors == 1).all()):
        return None
    rotary, dim = config.modules.position_embedding.rotary, config.modules.rotary_dim
    plain, _ = frequencies(rotary, dim)
    factor = float(divisors.max())
    for original in _TRAINED_LENGTHS:
        llama3 = RotaryScaling("llama3", factor, original)
        scaled, _ = frequencies(replace(rotary, scaling=llama3), dim)
        if divisors.shape == plain.shape and torch.allclose(plain / scaled, divisors, rtol=1e-4):
            return asdict(llama3)
    longest, each = config.params.max_seq_len, tuple(divisors.tolist())
    return asdict(
        RotaryScaling("longrope", factor, longest, attention_factor=1.0, short_factors=each, long_factors=each)
    )
