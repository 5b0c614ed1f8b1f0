"""Token ids as they lie in a file that another tool wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from slm.data.documents.source import file_identity
from slm.errors import UserError

BLOCK = 1 << 20  # ids that are looked at at a time


@dataclass(frozen=True, eq=False)
class IdArray:
    """Ids one after another in a file."""

    file: Path
    form: str  # whose, for people
    dtype: np.dtype[Any]
    offset: int  # bytes before the first
    length: int  # at least 1
    ends: np.ndarray | None = None  # (k,) int64: where documents end, the last at `length`; None: a token tells

    def __post_init__(self) -> None:
        if self.dtype.kind not in "ui" or self.dtype.itemsize > 8:
            raise UserError(f"data.path: '{self.file}' ({self.form}) holds {self.dtype.name}, which are no token ids")
        if self.length < 1:
            raise UserError(f"data.path: '{self.file}' ({self.form}) holds no ids")
        if (size := self.file.stat().st_size) < self.offset + self.length * self.dtype.itemsize:
            raise UserError(
                f"data.path: '{self.file}' ({self.form}) is cut off: it has {size:,} bytes, and {self.length:,} ids "
                f"take {self.offset + self.length * self.dtype.itemsize:,}; fetch or make it again"
            )

    def identity(self) -> list[Any]:
        """JSON types that change when the ids may have."""
        return [*file_identity(self.file), self.dtype.str, self.offset, self.length]

    def mapped(self) -> np.ndarray:
        """(length,), memory-mapped, read-only."""
        return np.memmap(self.file, self.dtype, mode="r", offset=self.offset, shape=(self.length,))

    def blocks(self) -> Iterator[np.ndarray]:
        ids = self.mapped()
        yield from (ids[start : start + BLOCK] for start in range(0, self.length, BLOCK))

    def part(self, start: int, stop: int) -> IdArray:
        """Ids ``start .. stop - 1``."""
        ends = None if self.ends is None else self.ends[(self.ends > start) & (self.ends < stop)] - start
        return replace(
            self,
            offset=self.offset + start * self.dtype.itemsize,
            length=stop - start,
            ends=None if ends is None else np.append(ends, stop - start),
        )
