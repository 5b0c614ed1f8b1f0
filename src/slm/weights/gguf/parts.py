"""A model in one GGUF file or, as llama.cpp's ``gguf-split`` writes large ones, in several beside each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from slm.errors import UserError, first_few
from slm.notices import notice
from slm.weights.gguf.read_file import PLAIN, GgufFile, read_file
from slm.weights.tensor_source import StoredTensor, TensorSource

_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


def read_gguf(file: Path) -> GgufFile:
    """The whole model of which `file` holds all, or a part: what the first says, and the tensors of all. `UserError` if
    one is missing, damaged, or of another model."""
    opened = read_file(file)
    n_parts = opened.values.get("split.count", 0)
    if isinstance(n_parts, int) and n_parts > 1:
        opened = _joined([read_file(one) for one in _parts_beside(file, n_parts)])
    if quantized := {kind: count for kind, count in opened.kinds.items() if kind not in PLAIN}:
        told = ", ".join(f"{count} {kind}" for kind, count in quantized.items())
        notice(f"{opened.where}: tensors in {told} are dequantized to float32")
    return opened


def first_parts(files: Iterable[Path]) -> list[Path]:
    """`files` without those that are a later part of one among them."""
    files = list(files)
    return [file for file in files if not (later := _first_of(file)) or later == file or later not in files]


def _first_of(file: Path) -> Path | None:
    found = _PART.fullmatch(file.name)
    return file.with_name(f"{found['name']}-00001-of-{found['count']}.gguf") if found else None


def _parts_beside(file: Path, count: int) -> list[Path]:
    found = _PART.fullmatch(file.name)
    if found is None or int(found["count"]) != count:
        raise UserError(
            f"{file} is one of {count} parts, which are found by their names; call it as it was "
            f"(NAME-00001-of-{count:05d}.gguf), with the others beside it"
        )
    parts = [file.with_name(f"{found['name']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise UserError(f"{file} is one of {count} parts, and beside it lie not all: {first_few(missing)}; fetch them")
    return parts


def _joined(parts: list[GgufFile]) -> GgufFile:
    stored: dict[str, StoredTensor] = {}
    kinds: Counter[str] = Counter()
    first = parts[0]
    for number, part in enumerate(parts):
        said = [part.values.get(f"split.{key}") for key in ("no", "count", "tensors.count")]
        if said != [number, len(parts), first.values.get("split.tensors.count")]:
            raise UserError(
                f"{part.where} is no part {number + 1} of {len(parts)} of this model (it says {said}); fetch it again"
            )
        if twice := part.tensors.stored.keys() & stored.keys():
            raise UserError(f"{part.where} holds '{min(twice)}', which another part holds too; fetch them again")
        stored |= part.tensors.stored
        kinds += part.kinds
    if len(stored) != (expected := first.values.get("split.tensors.count", len(stored))):
        held = f"{len(stored)} tensors of {expected}"
        raise UserError(f"{first.where}: its {len(parts)} parts hold {held}; fetch them again")
    return GgufFile(first.where, first.values, TensorSource(first.where, stored), kinds)
