"""A GGUF file (ggml-org/ggml `docs/gguf.md`): what its header says, and its tensors, dequantized as they are asked for.

The header is read here: the reader of the package `gguf` makes an array of every number and text in it, seconds for a
vocabulary, and counts through whatever length a damaged file claims."""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.errors import UserError
from slm.extras import require
from slm.weights.tensor_source import StoredTensor, TensorSource

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = "BbHhIif?", "Qqd"  # value types 0 to 7 and 10 to 12, little-endian
_FORMATS = {**dict(enumerate(_SCALARS[0])), **dict(enumerate(_SCALARS[1], start=10))}
_FLOAT32, _STRING, _ARRAY = 6, 8, 9
_MOST_VALUES = 4_000_000  # of a header; the largest vocabularies have a million tokens, scores and merges
PLAIN = {"F32": (np.float32, None), "F16": (np.float16, None), "BF16": (np.int16, torch.bfloat16)}


@dataclass(frozen=True)
class GgufFile:
    """What the header says, by its keys, and where the tensors lie."""

    where: str
    values: dict[str, Any]
    tensors: TensorSource
    kinds: Counter[str]  # how many tensors are in each form of numbers


def read_file(file: Path) -> GgufFile:
    """`UserError` if it is no whole GGUF file, or holds a form of numbers that the package `gguf` cannot read."""
    gguf = require("gguf", "gguf", f"the GGUF file {file}")
    header = _Header(file)
    version, n_tensors, n_values = header.counts()
    if version not in _VERSIONS:
        raise UserError(f"{file} is a GGUF file of version {version}, read are {_VERSIONS}; convert it anew")
    values = dict(header.entry() for _ in range(n_values))
    infos = [header.tensor_info() for _ in range(n_tensors)]
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise header.damaged(f"general.alignment is {alignment!r}")
    start = -(-header.place // alignment) * alignment
    stored: dict[str, StoredTensor] = {}
    kinds: Counter[str] = Counter()
    for name, shape, kind, offset in infos:
        try:
            form = gguf.GGMLQuantizationType(kind)
            block, block_bytes = gguf.GGML_QUANT_SIZES[form]
        except (ValueError, KeyError):
            raise UserError(f"{file}: '{name}' is of a form {kind} that gguf cannot read; take another file") from None
        n_bytes = int(np.prod(shape, dtype=object)) // block * block_bytes
        if shape[-1] % block or start + offset + n_bytes > header.size or name in stored:
            raise header.damaged(f"'{name}' does not lie in it whole, once")
        kinds[form.name] += 1
        read = partial(_read, file, start + offset, n_bytes, shape, form)
        dtype = {"F16": torch.float16, "BF16": torch.bfloat16}.get(form.name, torch.float32)
        stored[name] = StoredTensor(shape, dtype, read, str(file))
    return GgufFile(str(file), values, TensorSource(str(file), stored), kinds)


def _read(file: Path, start: int, n_bytes: int, shape: tuple[int, ...], form: Any) -> Tensor:
    """Numbers that are not quantized stay in the file, memory-mapped."""
    raw = np.memmap(file, np.uint8, mode="c", offset=start, shape=(n_bytes,))
    if form.name in PLAIN:
        stored, seen_as = PLAIN[form.name]
        tensor = torch.from_numpy(raw.view(stored)).reshape(shape)
        return tensor if seen_as is None else tensor.view(seen_as)
    gguf = require("gguf", "gguf", f"the GGUF file {file}")
    try:
        rows = gguf.dequantize(raw.reshape(*shape[:-1], -1), form)
    except NotImplementedError:
        raise UserError(f"{file}: gguf cannot dequantize {form.name}; take a file of another quantization") from None
    return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32)).reshape(shape)


class _Header:
    """Reads on through the file; `place` is where it stands."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.size = file.stat().st_size
        self.place = 0
        self._left = _MOST_VALUES
        with file.open("rb") as content:
            self._content = mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) if self.size else b""

    def damaged(self, why: str) -> UserError:
        return UserError(f"{self.file} is damaged ({why}); fetch it again")

    def counts(self) -> tuple[int, int, int]:
        if self._take(4) != MAGIC:
            raise self.damaged("it does not begin as a GGUF file")
        version, n_tensors, n_values = self._numbers("IQQ")
        if version > 0xFFFF:
            raise UserError(f"{self.file} was written for big-endian machines; take the usual, little-endian file")
        self._count(n_tensors + n_values)
        return version, n_tensors, n_values

    def entry(self) -> tuple[str, Any]:
        key = self._text()
        return key, self._value(*self._numbers("I"))

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        """(name, shape, form of numbers, offset); rows come first in `shape`, which the file has the other way."""
        name = self._text()
        (n_dims,) = self._numbers("I")
        if not 1 <= n_dims <= 4:
            raise self.damaged(f"'{name}' has {n_dims} dimensions")
        shape = self._numbers("Q" * n_dims)
        kind, offset = self._numbers("IQ")
        return name, tuple(reversed(shape)), kind, offset

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            of, length = self._numbers("IQ")
            self._count(length)
            if of == _STRING:
                return [self._text() for _ in range(length)]
            if of in _FORMATS:
                return list(
                    struct.unpack(f"<{length}{_FORMATS[of]}", self._take(length * struct.calcsize(_FORMATS[of])))
                )
            raise self.damaged(f"an array of values of type {of}")
        if kind not in _FORMATS:
            raise self.damaged(f"a value of type {kind}")
        (value,) = self._numbers(_FORMATS[kind])
        return float(str(np.float32(value))) if kind == _FLOAT32 else value  # 1e-5, not 9.99999974e-06

    def _text(self) -> str:
        (length,) = self._numbers("Q")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError:
            raise self.damaged("text that is no UTF-8") from None

    def _numbers(self, format: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{format}", self._take(struct.calcsize(f"<{format}")))

    def _count(self, more: int) -> None:
        self._left -= more
        if self._left < 0:
            raise self.damaged(f"its header would hold more than {_MOST_VALUES:,} values")

    def _take(self, n_bytes: int) -> bytes:
        end = self.place + n_bytes
        if end > self.size:
            raise self.damaged("it ends too early")
        taken = self._content[self.place : end]
        self.place = end
        return taken
