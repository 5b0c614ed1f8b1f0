"""What tensors are allocated and freed while code runs, of what kind each is, and the most there are at a time."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Event:
    """A block is allocated, or freed."""

    block: int
    size: int | None  # in bytes; None: it is freed


@dataclass
class _Block:
    number: int
    size: int
    kind: str


@dataclass
class Trace:
    """What `Allocations` saw."""

    events: list[Event] = field(default_factory=list)
    live: Counter[str] = field(default_factory=Counter)  # kind -> bytes that are allocated now
    peak: int = 0  # the most bytes at a time …
    at_peak: Counter[str] = field(default_factory=Counter)  # … and by kind, then


class Allocations(TorchDispatchMode):
    """Notes every storage that an operation makes, and when it goes; under torch's `FakeTensorMode` nothing is really
    allocated. ``kind`` is what new ones are counted as.

    It sees what torch's `MemTracker` sees (`torch.distributed._tools`; a test holds the two to the same byte), and
    writes down the order besides, which says how a heap grows; that one takes longer, for peaks of modules that
    nobody reads here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kind = ""
        self.trace = Trace()
        self._blocks: dict[int, _Block] = {}  # by the storage's address inside torch
        self._count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.add.Tensor and not torch.is_grad_enabled():
            self._take_over(args, result)
        for made in tree_leaves(result):
            if isinstance(made, Tensor):
                self._note(made)
        return result

    def count_as(self, kind: str, *tensors: Tensor | None) -> None:
        """Say what these, which were seen being made, are from now on."""
        for tensor in tensors:
            block = None if tensor is None else self._blocks.get(_identity(tensor))
            if block is not None:
                self._add(block.kind, -block.size)
                block.kind = kind
                self._add(kind, block.size)

    def _take_over(self, summands: Any, total: Tensor) -> None:
        """On its way back autograd adds gradients up where the first one lies, but not under modes like this one."""
        first = summands[0]
        block = self._blocks.get(_identity(first)) if isinstance(first, Tensor) else None
        if block is not None and block.size == total.untyped_storage().nbytes():
            self._blocks[_identity(total)] = self._blocks.pop(_identity(first))
            self._heed_end_of(total)

    def _note(self, tensor: Tensor) -> None:
        key = _identity(tensor)
        if key in self._blocks or tensor.device.type == "meta":
            return
        block = self._blocks[key] = _Block(self._count, tensor.untyped_storage().nbytes(), self.kind)
        self._count += 1
        self.trace.events.append(Event(block.number, block.size))
        self._add(block.kind, block.size)
        if (now := self.trace.live.total()) > self.trace.peak:
            self.trace.peak, self.trace.at_peak = now, +self.trace.live
        self._heed_end_of(tensor)

    def _heed_end_of(self, tensor: Tensor) -> None:
        weakref.finalize(tensor.untyped_storage(), self._gone, _identity(tensor)).atexit = False

    def _gone(self, key: int) -> None:
        if (block := self._blocks.pop(key, None)) is None:
            return  # another took it over
        self.trace.events.append(Event(block.number, None))
        self._add(block.kind, -block.size)

    def _add(self, kind: str, size: int) -> None:
        self.trace.live[kind] += size


def _identity(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
