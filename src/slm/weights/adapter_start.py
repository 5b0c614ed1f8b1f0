"""The matrices of a PEFT adapter as those that LoRA of ours begins with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from slm.errors import UserError, first_few
from slm.models.config import ModelConfig
from slm.models.modules.lora import LoraLinear
from slm.notices import notice
from slm.weights.hugging_face import tensor_table
from slm.weights.name_table import TRANSPOSED, Entry
from slm.weights.peft import Adapter, read_adapter


def begin_with_adapter(model: nn.Module, config: ModelConfig, folder: Path) -> None:
    """Let the `LoraLinear` of `model`, of the shape `config`, begin as the adapter in `folder` left off: what is added
    to each matrix is the same. Where queries, keys and values have an A each, ours, which has one for the three, is
    these above one another; rows that are left begin as new ones do. `UserError`: it is no adapter of this model, holds
    more than LoRA's matrices, or needs more layers or a higher rank than `model` has."""
    adapter = read_adapter(folder)
    if adapter.whole or adapter.of_embeddings:
        held = first_few(sorted({*adapter.whole, *adapter.of_embeddings}))
        raise UserError(
            f"adapter.weights: {adapter.where} holds more than LoRA of linear layers ({held}); merge it, and begin a "
            f"new one (model.weights={folder})"
        )
    entries = [entry for entry in tensor_table(config) if not adapter.pairs.keys().isdisjoint(entry.theirs)]
    known = {name for entry in entries for name in entry.theirs}
    if unknown := sorted(adapter.pairs.keys() - known):
        raise UserError(f"adapter.weights: {adapter.where} is no adapter of model.weights: they have no {unknown[0]}")
    needed = 0
    for entry in entries:
        path = entry.ours.removesuffix(".weight")
        layer = model.get_submodule(path)
        if not isinstance(layer, LoraLinear):
            name = path.rpartition(".")[2]
            raise UserError(
                f"adapter.weights: {adapter.where} adapts '{name}', which adapter.targets leaves out; add it"
            )
        a, b = _matrices(entry, adapter, layer)
        needed = max(needed, len(a))
        if len(a) <= len(layer.lora_a):
            with torch.no_grad():
                layer.lora_a[: len(a)] = a
                layer.lora_b[:, : len(a)] = b / layer.scale
    if needed > (rank := _rank(model)):
        raise UserError(
            f"adapter.rank={rank}: {adapter.where} needs {needed} (where queries, keys and values have an A each, "
            f"their ranks add up); set adapter.rank={needed}"
        )
    notice(f"adapter: {len(entries)} layers go on from {adapter.where}")


def _matrices(entry: Entry, adapter: Adapter, layer: LoraLinear) -> tuple[Tensor, Tensor]:
    """A (r, in) and B (out, r), fp32, whose product is all that the adapter adds to a matrix of ours."""
    rows = entry.rows or (layer.out_features,)
    parts: list[tuple[int, Tensor, Tensor]] = []  # where it begins, its A and its B
    start = 0
    for name, layout, length in zip(entry.theirs, entry.layouts, rows, strict=True):
        if name in adapter.pairs:
            a, b, scale = adapter.matrices(name)
            b = scale * (b if layout is TRANSPOSED else layout.to_ours(b))
            if a.shape[1] != layer.in_features or b.shape[0] != length:
                shapes = f"{b.shape[0]} x {a.shape[1]}, expected {length} x {layer.in_features}"
                raise UserError(
                    f"adapter.weights: {adapter.where} is no adapter of model.weights: '{name}' is {shapes}"
                )
            parts.append((start, a, b))
        start += length
    first = parts[0][1]
    if all(torch.equal(a, first) for _, a, _ in parts):  # as ours leave
        shared = torch.zeros(layer.out_features, len(first))
        for begin, _, b in parts:
            shared[begin : begin + len(b)] = b
        return first, shared
    ranks = [len(a) for _, a, _ in parts]
    wide = torch.zeros(layer.out_features, sum(ranks))
    for column, (begin, a, b) in zip((sum(ranks[:i]) for i in range(len(ranks))), parts, strict=True):
        wide[begin : begin + len(b), column : column + len(a)] = b
    return torch.cat([a for _, a, _ in parts]), wide


def _rank(model: nn.Module) -> int:
    return next(len(layer.lora_a) for layer in model.modules() if isinstance(layer, LoraLinear))
