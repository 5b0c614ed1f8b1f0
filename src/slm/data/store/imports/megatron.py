"""Megatron's pairs of files: ids in ``NAME.bin``, where sequences and documents lie in ``NAME.idx``."""

import struct
from pathlib import Path

import numpy as np

from slm.data.store.imports.id_array import IdArray
from slm.errors import UserError

_MAGIC = b"MMIDIDX\0\0"
_HEADER = struct.Struct("<9sQBQQ")  # magic, version, type of an id, numbers of sequences and of document borders
_DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}


def index_of(file: Path) -> Path | None:
    """The index beside a file of ids, if there is one."""
    index = file.with_suffix(".idx")
    return index if file.suffix == ".bin" and index.is_file() else None


def megatron_ids(file: Path, index: Path) -> IdArray:
    """`UserError` if the index is another's, is damaged, or says that ids lie otherwise than one after another."""
    raw = index.read_bytes()
    if len(raw) < _HEADER.size or raw[: len(_MAGIC)] != _MAGIC:
        raise UserError(f"data.path: '{index}' is no index of Megatron's (MMIDIDX); make '{file.name}' again with it")
    _, version, code, n_sequences, n_borders = _HEADER.unpack_from(raw)
    if version != 1 or code not in _DTYPES:
        raise UserError(f"data.path: '{index}' has version {version} and ids of type {code}; known are 1 and {_DTYPES}")
    if len(raw) < _HEADER.size + 12 * n_sequences + 8 * n_borders:
        raise UserError(f"data.path: '{index}' is cut off; fetch or make it again")
    lengths = np.frombuffer(raw, "<i4", n_sequences, _HEADER.size).astype(np.int64)
    starts = np.frombuffer(raw, "<i8", n_sequences, _HEADER.size + 4 * n_sequences)
    borders = np.frombuffer(raw, "<i8", n_borders, _HEADER.size + 12 * n_sequences)
    dtype, ends = np.dtype(_DTYPES[code]), np.cumsum(lengths)
    in_order = (lengths >= 0).all() and np.array_equal(starts, (ends - lengths) * dtype.itemsize)
    if not in_order or not ((borders >= 0) & (borders <= n_sequences)).all() or (np.diff(borders) < 0).any():
        raise UserError(f"data.path: '{index}' is damaged: its sequences do not follow one another; make it again")
    length = int(ends[-1]) if n_sequences else 0
    of_documents = np.unique(np.append(ends[borders[borders > 0] - 1], length))  # of those that are not empty
    return IdArray(file, "Megatron", dtype, 0, length, of_documents[of_documents > 0])
