"""What llama.cpp computes of each family that slm knows: its name of the architecture, the settings it reads, and what
it would compute otherwise than we do."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from slm.errors import UserError
from slm.models.config import ModelConfig, RotaryScaling
from slm.models.modules.embeddings import frequencies
from slm.weights.gguf.names import ARCHITECTURES, gguf_table
from slm.weights.hugging_face import family_of
from slm.weights.name_table import Table

_BY_FAMILY = {"mistral": "llama", **{family: name for name, family in ARCHITECTURES.items()}}
_ACTIVATIONS = {"gpt2": "gelu_tanh", "gptneox": "gelu_tanh"}  # it reads none of the file; others are gated by silu
_BIASES = {  # of the linear layers, as ``blk.*`` tensors that it adds; the norms' follow from their kind
    "gpt2": {"qkv_bias": True, "out_proj_bias": True, "mlp_bias": True},
    "gptneox": {"qkv_bias": True, "out_proj_bias": True, "mlp_bias": True},
    "llama": {},  # whichever there are
    "qwen2": {"qkv_bias": True, "out_proj_bias": False, "mlp_bias": False},
    "qwen3": {"qkv_bias": False, "out_proj_bias": False, "mlp_bias": False},
}


def architecture_of(config: ModelConfig) -> tuple[str, Table]:
    """llama.cpp's name of the architecture that computes what the model does, and names of the model's tensors there;
    `UserError` where none does."""
    family = family_of(config)
    architecture = _BY_FAMILY.get(family.model_type)
    if architecture is None:
        raise UserError(f"slm knows no form of {family.model_type} in llama.cpp (known: {', '.join(_BY_FAMILY)})")
    if differences := list(_differences(architecture, config)):
        found = "; ".join(differences)
        raise UserError(f"llama.cpp's {architecture} would compute something else: {found}; to=hf holds it as it is")
    return architecture, gguf_table(architecture, family.table(config), config)


def _differences(architecture: str, config: ModelConfig) -> Iterator[str]:
    shape, rotary = config.modules.transformer, config.modules.position_embedding.rotary
    activation = _ACTIVATIONS.get(architecture, "silu")
    if shape.activation != activation:
        yield f"activation={shape.activation} (it computes {activation})"
    for name, has_one in _BIASES[architecture].items():
        if getattr(shape, name) != has_one:
            yield f"{name}={getattr(shape, name)} (it has {'one' if has_one else 'none'})"
    if shape.sliding_window is not None and shape.sliding_window < config.params.max_seq_len:
        yield f"sliding_window={shape.sliding_window} (it sees all positions)"
    scaling = rotary.scaling
    if scaling is None:
        return
    if scaling.kind == "llama3" and architecture != "llama":
        yield f"rotary.scaling of kind llama3 (in its {architecture} all waves are scaled alike)"
    if scaling.kind == "dynamic":
        yield "rotary.scaling of kind dynamic (it has none that follows the text's length)"
    if scaling.kind == "longrope" and not (_divides_alike(scaling) and architecture == "llama"):
        yield "rotary.scaling of kind longrope (it takes the factors of the context's length, not of the text's)"
    own = {"attention_factor": None, "beta_fast": 32.0, "beta_slow": 1.0}
    for name, value in own.items() if scaling.kind == "yarn" else ():
        if getattr(scaling, name) != value:
            yield f"rotary.scaling.{name}={getattr(scaling, name)} (it takes the paper's {value or 'formula'})"


def _divides_alike(scaling: RotaryScaling) -> bool:
    return scaling.short_factors == scaling.long_factors and scaling.attention_factor == 1


def settings_of(architecture: str, config: ModelConfig) -> dict[str, Any]:
    """The file's entries of the shape, by key without the architecture's name."""
    shape = config.modules.transformer
    norm = "layer_norm_rms_epsilon" if shape.norm == "rms_norm" else "layer_norm_epsilon"
    settings: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.params.max_seq_len,
        "embedding_length": shape.dim,
        "block_count": shape.n_layers,
        "feed_forward_length": shape.mlp_dim,
        "attention.head_count": shape.n_heads,
        "attention.head_count_kv": shape.n_kv_heads,
        f"attention.{norm}": shape.norm_eps,
    }
    if architecture == "gptneox":
        settings["use_parallel_residual"] = shape.parallel_residual
    if config.modules.position_embedding.kind != "rotary":
        return settings
    rotary = config.modules.position_embedding.rotary
    settings |= {
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "rope.dimension_count": config.modules.rotary_dim,
        "rope.freq_base": rotary.base,
    }
    if rotary.scaling is not None and rotary.scaling.kind not in ("llama3", "longrope"):  # which are a tensor
        settings |= {"rope.scaling.type": rotary.scaling.kind, "rope.scaling.factor": rotary.scaling.factor}
        if rotary.scaling.original_max_seq_len is not None:
            settings["rope.scaling.original_context_length"] = rotary.scaling.original_max_seq_len
    return settings


def rotary_factors(config: ModelConfig) -> Tensor | None:
    """(rotary_dim / 2,) fp32 by which llama.cpp divides the frequency of each pair, for scaling of kind llama3, and of
    kind longrope where it is the same at all lengths."""
    rotary, dim = config.modules.position_embedding.rotary, config.modules.rotary_dim
    if rotary.scaling is None or rotary.scaling.kind not in ("llama3", "longrope"):
        return None
    plain = 1.0 / (rotary.base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    return plain / frequencies(rotary, dim)[0]
