"""Which of the ids that another tool wrote are trained on, and which validate: by its files' names, or a share."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slm.data.parts import part_of
from slm.data.store.imports.id_array import BLOCK, IdArray
from slm.errors import UserError


@dataclass(frozen=True)
class Named:
    """Files by the part that their names speak of; what names none is trained on."""

    train: list[Path]
    val: list[Path]
    left_out: list[Path]  # of another part


def by_name(files: Sequence[Path], has_val: bool) -> Named:
    """By what a file's name, or a folder's below the common one, says (`part_of`); where none is to be trained on, all
    are. With ``has_val``, validation is given already, and what is named so is left out."""
    root = os.path.commonpath([file.absolute().parent for file in files])
    parts: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for file in files:
        parts[part_of(file.absolute().relative_to(root)) or "train"].append(file)
    if not parts["train"]:
        return Named(list(files), [], [])
    if has_val or not parts["val"]:
        return Named(parts["train"], [], parts["val"] + parts["test"])
    return Named(parts["train"], parts["val"], parts["test"])


def hold_out(arrays: Sequence[IdArray], fraction: float, marks: Collection[int]) -> tuple[list[IdArray], list[IdArray]]:
    """The last `fraction` of the ids, from where a document begins, if one does in the first half of these: from behind
    its predecessor's end, by the file's index or by one of `marks`, the tokens that stand between documents."""
    lengths = np.array([array.length for array in arrays])
    whole = int(lengths.sum())
    cut = int(whole * (1 - fraction))
    if not 0 < cut < whole:
        raise UserError(
            f"data: {whole:,} ids are too few to hold out a fraction of {fraction} for validation; "
            "give more, or another data.val_fraction"
        )
    number = int(np.searchsorted(np.cumsum(lengths), cut, side="right"))
    before = int(lengths[:number].sum())
    array, stop = arrays[number], min(cut + (whole - cut) // 2, before + arrays[number].length)
    place = _document_begins(array, cut - before, stop - before, marks)
    train, val = list(arrays[:number]), list(arrays[number + 1 :])
    return [*train, *([array.part(0, place)] if place else [])], [array.part(place, array.length), *val]


def _document_begins(array: IdArray, start: int, stop: int, marks: Collection[int]) -> int:
    """The first place from `start` on, ahead of `stop`, where a document begins; `start` if none does."""
    if array.ends is not None:
        ends = array.ends[(array.ends >= start) & (array.ends < stop)]
        return int(ends[0]) if len(ends) else start
    ids = array.mapped()
    for block in range(start, stop, BLOCK):
        found = np.flatnonzero(np.isin(ids[block : min(stop, block + BLOCK)], list(marks)))
        if len(found):
            return min(block + int(found[0]) + 1, array.length - 1)
    return start
