"""Models that no family of `transformers` holds, as folders that bring their own modelling file (`modeling_slm.py`)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slm.models.config import ModelConfig
from slm.models.modules.embeddings import frequencies

MODEL_TYPE = "slm"
MODELING_FILE = Path(__file__).with_name("modeling_slm.py")
_KNOWN = {
    "name": ("gpt",),
    "modules.position_embedding.kind": ("learned", "sinusoidal", "rotary", "none"),
    "modules.transformer.attention": ("mha",),
    "modules.transformer.mlp": ("mlp", "glu"),
    "modules.transformer.activation": ("gelu", "gelu_tanh", "relu", "relu2", "silu"),
    "modules.transformer.norm": ("layer_norm", "rms_norm"),
}


def unknown_parts(config: ModelConfig) -> list[str]:
    """Parts, ``setting=name``, that a plugin registered: the modelling file has none of them."""
    flat = config.flat()
    return [f"{key}={flat[key]}" for key, known in _KNOWN.items() if flat[key] not in known]


def custom_config(config: ModelConfig) -> dict[str, Any]:
    """The ``config.json`` of a model without `unknown_parts`, but for token ids and dtype."""
    shape = config.modules.transformer
    rotary: dict[str, Any] = {}
    if config.modules.position_embedding.kind == "rotary":
        found, factor = frequencies(config.modules.position_embedding.rotary, config.modules.rotary_dim)
        rotary = {"rotary_frequencies": found.tolist(), "rotary_factor": factor}
    return {
        "architectures": ["SlmForCausalLM"],
        "model_type": MODEL_TYPE,
        "auto_map": {"AutoConfig": "modeling_slm.SlmConfig", "AutoModelForCausalLM": "modeling_slm.SlmForCausalLM"},
        "vocab_size": config.vocab_size,
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": config.params.max_seq_len,
        "tie_word_embeddings": config.modules.output_projection.tie_weights,
        "use_cache": True,
        "slm": unpadded(config).to_dict(),
        **rotary,
    }


def unpadded(config: ModelConfig) -> ModelConfig:
    """The same model without spare rows for tokens: files hold none."""
    return replace(config, params=replace(config.params, vocab_multiple=1))


def read_custom_config(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `custom_config` wrote: the nested values of a `ModelConfig`."""
    found = values.get("slm")
    return found if isinstance(found, Mapping) else {}
