"""Which tool wrote a file of token ids, found by looking, and where in it they are."""

import math
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slm.data.config import AUTO
from slm.data.store.imports.id_array import IdArray
from slm.data.store.imports.litdata import INDEX, is_litdata, litdata_ids
from slm.data.store.imports.megatron import index_of, megatron_ids
from slm.errors import UserError

_LLM_C_HEADER = 256  # int32: a number for the format, its version, how many ids follow
_LLM_C = {(20240520, 1): "<u2", (20240801, 7): "<u4"}  # GPT-2's and Llama 3's
_LLM_C_OTHERS = {20240520, 20240801, 20240522}  # the last: questions with answers to choose from
_NPY = b"\x93NUMPY"
_NANOGPT = ("train.bin", "val.bin")
_ENOUGH_TO_TELL = 16


def id_arrays(files: Sequence[Path], dtype: str = AUTO) -> list[IdArray]:
    """The ids of all `files`, in their order, litdata's in its index's; `dtype` is of files that do not say it.
    `UserError`: a file holds something else, is damaged, or does not say how its ids are written."""
    found: list[IdArray] = []
    folders = {folder: is_litdata(folder) for folder in dict.fromkeys(file.parent for file in files)}
    for file in files:
        if not folders[file.parent]:
            found.append(_ids_of(file, dtype))
        elif not any(array.file.parent == file.parent for array in found):
            found += litdata_ids(file.parent)
    for array in found:
        if dtype not in (AUTO, array.dtype.name):
            raise UserError(
                f"data.dtype={dtype}, but '{array.file}' ({array.form}) says itself that it holds {array.dtype.name}; "
                "leave data.dtype out"
            )
    return found


def _ids_of(file: Path, dtype: str) -> IdArray:
    if index := index_of(file):
        return megatron_ids(file, index)
    with file.open("rb") as content:
        head = content.read(4 * _LLM_C_HEADER)
    if file.name == INDEX or head.startswith(b"MMIDIDX"):
        raise UserError(f"data.path: '{file}' is the index of other files; give these, or their folder")
    if head.startswith(_NPY):
        return _npy(file)
    return _llm_c(file, head) or _raw(file, dtype)


def _llm_c(file: Path, head: bytes) -> IdArray | None:
    """llm.c's and modded-nanogpt's; None for a file without their header."""
    if len(head) < 4 * _LLM_C_HEADER:
        return None
    magic, version, length = np.frombuffer(head, "<i4", 3).tolist()
    if magic not in _LLM_C_OTHERS:
        return None
    if (magic, version) not in _LLM_C:
        raise UserError(
            f"data.path: '{file}' is llm.c's format {magic}, version {version}; token ids are "
            f"{' and '.join(f'{known}, version {of}' for known, of in _LLM_C)}"
        )
    return IdArray(file, "llm.c", np.dtype(_LLM_C[magic, version]), len(head), length)


def _npy(file: Path) -> IdArray:
    """A file of `numpy.save`; of several dimensions, rows one after another."""
    try:
        with file.open("rb") as content:
            version = np.lib.format.read_magic(content)
            of_version: Any = {(1, 0): np.lib.format.read_array_header_1_0}
            shape, in_columns, dtype = of_version.get(version, np.lib.format.read_array_header_2_0)(content)
            offset = content.tell()
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise UserError(f"data.path: '{file}' is damaged ({error}); make it again") from None
    if in_columns and len(shape) > 1:
        raise UserError(f"data.path: '{file}' lies column by column; save it again with numpy.ascontiguousarray")
    return IdArray(file, "NumPy", dtype, offset, math.prod(shape))


def _raw(file: Path, dtype: str) -> IdArray:
    """Numbers alone, as nanoGPT and OLMo write them."""
    form = "bare numbers"
    if dtype == AUTO and file.name in _NANOGPT and all((file.parent / name).is_file() for name in _NANOGPT):
        form, dtype = "nanoGPT", "uint16"
    if dtype == AUTO:
        raise UserError(
            f"data.path: '{file}' does not say how its ids are written, as files of llm.c, Megatron, litdata and NumPy "
            "do, and nanoGPT's train.bin beside val.bin; set data.dtype=uint16 (vocabularies of at most 65,536 ids, as "
            "a rule) or data.dtype=uint32"
        )
    kind = np.dtype(dtype).newbyteorder("<")
    length, rest = divmod(file.stat().st_size, kind.itemsize)
    if rest:
        raise UserError(
            f"data.path: '{file}' has {file.stat().st_size:,} bytes, which are no whole {dtype}; set another "
            "data.dtype, or fetch the file again"
        )
    array = IdArray(file, form, kind, 0, length)
    second = next(array.blocks())[1::2]
    if len(second) >= _ENOUGH_TO_TELL and not second.any():
        raise UserError(
            f"data.path: every second id of '{file}' is 0, read as {dtype}: they are wider; "
            f"set data.dtype=uint{16 * kind.itemsize}"
        )
    return array
