"""Which variables a TensorFlow checkpoint holds, by its index, read before TensorFlow reads it.

What no checksum forbids ends its process (a `CHECK` in C++): a dimension below zero, a shape too large to count, an
entry that does not parse, a slice given twice. Others it takes memory for before it looks how long the data is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.extras import require
from slm.weights.tf_table import table_entries

_MOST_DIMENSIONS = 32
_MOST_ELEMENTS = 1 << 48
"""Far above any model's, far below what overflows."""


@dataclass(frozen=True)
class Variable:
    """An entry of the index.

    Attributes:
        shape: its sizes.
        dtype: TensorFlow's number of its type (types.proto).
    """

    shape: tuple[int, ...]
    dtype: int


def read_index(prefix: Path) -> dict[str, Variable]:
    """The variables by name, of ``PREFIX.index``; each lies within the ``PREFIX.data-*`` that its entry says.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no index, or one that TensorFlow should not see.
        UserError: TensorFlow, which knows the messages that the entries are, is not installed.
    """
    messages = require("tensorflow.core.protobuf.tensor_bundle_pb2", "tf", f"the TensorFlow checkpoint '{prefix}'")
    entries = table_entries(prefix.with_name(f"{prefix.name}.index"))
    key, value = next(entries, (b"", b""))
    n_shards = _parsed(messages.BundleHeaderProto, value, "the header").num_shards
    if key or not n_shards:
        raise ValueError("the index has no header")
    variables, lengths = {}, _Lengths(prefix, n_shards)
    for key, value in entries:
        name = key.decode()
        entry = _parsed(messages.BundleEntryProto, value, f"the entry of '{name}'")
        variables[name] = Variable(_shape(name, entry), entry.dtype)
        if not 0 <= entry.offset <= entry.offset + entry.size <= lengths.of(entry.shard_id):
            raise ValueError(f"'{name}' would lie beyond the end of its data file")
    return variables


class _Lengths:
    """Of the data files, in bytes; each is looked for once."""

    def __init__(self, prefix: Path, n_shards: int) -> None:
        self._prefix, self._n_shards = prefix, n_shards
        self._known: dict[int, int] = {}

    def of(self, shard: int) -> int:
        if shard not in self._known:
            file = self._prefix.with_name(f"{self._prefix.name}.data-{shard:05d}-of-{self._n_shards:05d}")
            if not file.is_file():  # a pipe would wait for ever
                raise ValueError(f"{file.name} is missing")
            self._known[shard] = file.stat().st_size
        return self._known[shard]


def _parsed(message: Any, value: bytes, what: str) -> Any:
    damaged: type[Exception] = require("google.protobuf.message", "tf", "a TensorFlow checkpoint").DecodeError
    try:
        return message.FromString(value)
    except damaged as error:
        raise ValueError(f"{what} does not parse ({error})") from None


def _shape(name: str, entry: Any) -> tuple[int, ...]:
    shape = tuple(dim.size for dim in entry.shape.dim)
    if entry.slices or entry.shape.unknown_rank:
        raise ValueError(f"'{name}' is in slices, or of no known shape, which no variable of GPT-2 is")
    if len(shape) > _MOST_DIMENSIONS or min(shape, default=0) < 0:
        raise ValueError(f"'{name}' has {len(shape)} dimensions, the smallest {min(shape, default=0)}")
    if math.prod(size or 1 for size in shape) > _MOST_ELEMENTS:
        raise ValueError(f"'{name}' has a shape that no weight has")
    return shape
