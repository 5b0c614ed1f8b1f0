"""A PEFT adapter (huggingface/peft): the thin matrices of LoRA beside a model, merged into it as it is loaded."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slm.errors import UserError, first_few
from slm.files.reading import read_json_object
from slm.notices import notice
from slm.weights.families.family import ForeignConfig
from slm.weights.fine_tuning import ADAPTER_CONFIG
from slm.weights.hugging_face import family_of
from slm.weights.name_table import Entry, check_tensors, identity_table, load_tensors, widest_dtype
from slm.weights.pretrained import Pretrained
from slm.weights.tensor_source import StoredTensor, TensorSource, safetensors_in
from slm.weights.torch_files import torch_files_in

_SAFETENSORS, _TORCH_FILE = "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
_ONLY = {"peft_type": "LORA", "use_dora": False, "use_qalora": False, "layer_replication": None, "lora_bias": False}
_NAME = re.compile(r"[\w.]+")  # of a module; peft takes patterns, too
_PART = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.weight)?")


@dataclass(frozen=True)
class Adapter:
    """What ``adapter_config.json`` says, and the tensors under the names of the base."""

    where: str
    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    is_rslora: bool
    is_transposed: bool  # the base keeps its matrices as (in, out)
    pairs: Mapping[str, Mapping[str, StoredTensor]]  # of a weight of the base: A (r, in) and B (out, r)
    of_embeddings: frozenset[str]  # of those, the ones whose product is (C, V)
    whole: Mapping[str, StoredTensor]  # trained whole, in place of the base's

    def update(self, name: str) -> Tensor | None:
        """What is added to the weight called `name`, in fp32 and its layout; None if nothing is."""
        if name not in self.pairs:
            return None
        a, b, scale = self.matrices(name)
        product = b @ a * scale
        return product.t() if self.is_transposed or name in self.of_embeddings else product

    def matrices(self, name: str) -> tuple[Tensor, Tensor, float]:
        """A (r, in) and B (out, r) of the weight called `name`, in fp32, and the scale of their product."""
        a, b = (self.pairs[name][side].read().float() for side in "AB")
        return a, b, self._scale(name)

    def _scale(self, name: str) -> float:
        module = name.removesuffix(".weight")
        rank = _of_pattern(self.rank_pattern, module, self.rank)
        alpha = _of_pattern(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.is_rslora else rank)


def base_of(folder: Path) -> str | None:
    """What the adapter in `folder` calls its base."""
    named = read_json_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    return named if isinstance(named, str) else None


def read_adapter(folder: Path) -> Adapter:
    """`UserError` if a file is missing or damaged, or it is another kind than LoRA."""
    values = read_json_object(folder / ADAPTER_CONFIG)
    theirs = ForeignConfig(values, str(folder / ADAPTER_CONFIG))
    for key, value in _ONLY.items():
        if values.get(key) is not None:
            theirs.only(key, value)
    rank, alpha = theirs.count("r", 8), theirs.number("lora_alpha", 8)
    patterns: dict[str, Mapping[str, Any]] = {}
    for key in ("rank_pattern", "alpha_pattern"):
        given = theirs.get(key, {})
        patterns[key] = given if isinstance(given, Mapping) else {}
        odd = [name for name, one in patterns[key].items() if not (_is_positive(one) and _NAME.fullmatch(name))]
        theirs.problems += [f"{key}: {name}={patterns[key][name]!r} (names with a number above 0)" for name in odd]
    rslora, transposed = theirs.flag("use_rslora", False), theirs.flag("fan_in_fan_out", False)
    theirs.stop_if_any()
    is_safe = (folder / _SAFETENSORS).is_file() or not (folder / _TORCH_FILE).is_file()
    source = safetensors_in(folder, _SAFETENSORS) if is_safe else torch_files_in(folder, _TORCH_FILE)
    pairs: dict[str, dict[str, StoredTensor]] = {}
    whole: dict[str, StoredTensor] = {}
    of_embeddings: set[str] = set()
    for name, stored in source.stored.items():
        plain = name.removeprefix(_PREFIX).replace(".modules_to_save", "").replace(".base_layer", "")
        if part := _PART.fullmatch(plain):
            weight = f"{part['module']}.weight"
            pairs.setdefault(weight, {})[part["side"]] = stored
            of_embeddings.update([weight] if part["embedding"] else ())
        elif "lora_" in plain:
            raise UserError(f"{source.where}: '{name}' is no part of LoRA that slm knows; merge it by peft itself")
        else:
            whole[plain] = stored
    if half := [name for name, sides in pairs.items() if len(sides) != 2]:
        raise UserError(f"{source.where} is damaged (half of the update of '{half[0]}' is missing); fetch it again")
    scales = (rank, alpha, patterns["rank_pattern"], patterns["alpha_pattern"], rslora)
    return Adapter(source.where, *scales, transposed, pairs, frozenset(of_embeddings), whole)


def merged(base: Pretrained, adapter: Adapter) -> Pretrained:
    """The `base` with the adapter's update in its weights, each rounded once to the base's dtype. `UserError` if the
    adapter is another model's."""
    config = base.config
    table = family_of(config).table(config)
    laid_out = base.laid_out()
    ours = laid_out.state_dict()
    check_tensors(base.table, ours, base.tensors, config.vocab_size)
    known = {name for entry in table for name in entry.theirs}
    if unknown := sorted((adapter.pairs.keys() | adapter.whole.keys()) - known):
        raise UserError(
            f"{adapter.where} is no adapter of this base: it has no {first_few(unknown)}; give another base"
        )
    dtype = widest_dtype(base.table, base.tensors)
    of_base = {entry.ours: entry for entry in base.table}

    def read(entry: Entry) -> Tensor:
        found = load_tensors([of_base[entry.ours]], ours, base.tensors, dtype, torch.device("cpu"))[entry.ours]
        rows = entry.rows or (config.vocab_size if entry.padded else len(found),)
        starts = itertools.accumulate(rows, initial=0)
        for name, layout, start, length in zip(entry.theirs, entry.layouts, starts, rows, strict=False):
            update, trained = adapter.update(name), adapter.whole.get(name)
            theirs = trained.read() if trained is not None else update
            if theirs is None:
                continue
            given = layout.to_ours(theirs)
            before = found[start : start + length]
            if given.shape != before.shape:
                shapes = f"{tuple(given.shape)}, expected {tuple(before.shape)}"
                raise UserError(f"{adapter.where} is no adapter of this base: '{name}' is {shapes}; give another base")
            after = (given if trained is not None else before.float() + given).to(dtype)
            found = torch.cat([found[:start], after, found[start + length :]])
        return found

    stored = {
        entry.ours: StoredTensor(tuple(ours[entry.ours].shape), dtype, functools.partial(read, entry), adapter.where)
        for entry in table
    }
    updated = f"{len(adapter.pairs)} matrices" + (f" and {len(adapter.whole)} whole tensors" if adapter.whole else "")
    notice(f"{adapter.where}: a PEFT adapter, merged into its base: {updated}")
    tensors = TensorSource(adapter.where, stored)
    return replace(base, table=identity_table(laid_out), tensors=tensors)


def _of_pattern(pattern: Mapping[str, Any], module: str, default: Any) -> Any:
    found = (value for key, value in pattern.items() if f".{module}".endswith(f".{key}"))
    return next(found, default)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
