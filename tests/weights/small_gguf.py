"""GGUF files as llama.cpp's converter writes them: its names by the package `gguf`, its order of rows by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

NAMES = {"gpt_neox": "gptneox", "mistral": "llama"}
Say = Callable[[Any], None]


def turned(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries or keys with the two of each pair side by side, for each head."""
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def laid_out(name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    if config.model_type in ("llama", "mistral") and "q_proj" in name:
        return turned(tensor, config.num_attention_heads)
    if config.model_type in ("llama", "mistral") and "k_proj" in name:
        return turned(tensor, config.num_key_value_heads)
    if config.model_type == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return tensor.T
    if "query_key_value" in name:
        by_head = tensor.reshape(config.num_attention_heads, 3, -1, *tensor.shape[1:])
        return torch.cat([by_head[:, part].flatten(0, 1) for part in range(3)])
    return tensor


def write_gguf(
    file: Path, model: nn.Module, say: Say = lambda writer: None, quantized: str = "F32", **writing: Any
) -> None:
    """The `model` of transformers; matrices whose rows it fits are `quantized`, and in the model, too, they become what
    their codes stand for. `say` adds to the header; `writing` are arguments of gguf's writer."""
    import gguf

    config: Any = model.config
    architecture = NAMES.get(config.model_type, config.model_type)
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    writer = gguf.GGUFWriter(file, architecture, **writing)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    elif config.model_type == "gpt_neox":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_parallel_residual(config.use_parallel_residual)
        head_dim = config.hidden_size // config.num_attention_heads
        writer.add_rope_dimension_count(int(config.rope_parameters["partial_rotary_factor"] * head_dim))
    else:
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        if config.model_type in ("llama", "qwen3", "mistral"):
            writer.add_key_length(config.head_dim)
    say(writer)
    kind = gguf.GGMLQuantizationType[quantized]
    for name, parameter in model.named_parameters():
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs is not None, name
        rows = laid_out(name, parameter.detach(), config).float().contiguous().numpy()
        if quantized == "F32" or rows.ndim < 2 or "wpe" in name:
            writer.add_tensor(theirs, rows)
            continue
        codes = gguf.quantize(rows, kind)
        writer.add_tensor(theirs, codes, raw_dtype=kind)
        meant = torch.from_numpy(np.array(gguf.dequantize(codes, kind)).reshape(rows.shape))
        # each layout is a permutation: told by where it puts the number of each element
        places = laid_out(name, torch.arange(parameter.numel()).reshape(parameter.shape), config).flatten()
        with torch.no_grad():
            parameter.copy_(torch.empty(parameter.numel()).scatter_(0, places, meant.flatten()).view_as(parameter))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
