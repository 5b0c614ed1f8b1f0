"""How far a heap grows that gives each block the smallest hole it fits into, as glibc's does."""

from __future__ import annotations

import platform
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from slm.study.plan.allocations import Event

_HEADER, _UNIT = 16, 16  # bytes
# Before glibc 2.38 a block that begins at a cache line, as torch's do, is sought with so many bytes more; what lies
# ahead of the line is given back …
_MORE, _AHEAD = 96, 48
# … and then, of every so many blocks, taken by a small object, after which the hole is too short for the next such
# block. Measured: docs/log.md
_TAKEN_EVERY = 3


def seeks_more() -> bool:
    """Whether this machine's heap is one of glibc before 2.38."""
    name, version = platform.libc_ver()
    return name == "glibc" and tuple(map(int, version.split(".")[:2])) < (2, 38)


def held_at_most(events: Iterable[Event], mapped_from: int, more: bool) -> int:
    """Bytes that a process holds at most. What is freed in the middle of a heap stays with it, and a block that fits no
    hole goes on top; it needs `more` than its size where the heap `seeks_more`. Blocks of `mapped_from` bytes and more
    lie by themselves, and go back (see `slm.training.process.keep_freed_memory`)."""
    heap, mapped, most = _Heap(more), dict[int, int](), 0
    lie_apart = 0
    for event in events:
        if event.size is None and event.block in mapped:
            lie_apart -= mapped.pop(event.block)
        elif event.size is None:
            heap.free(event.block)
        elif event.size >= mapped_from:
            lie_apart += event.size
            mapped[event.block] = event.size
        else:
            heap.take(event.block, event.size)
        most = max(most, heap.top + lie_apart)
    return most


@dataclass
class _Heap:
    seeks_more: bool
    top: int = 0
    _number: int = 0  # of blocks so far
    _holes: list[tuple[int, int]] = field(default_factory=list)  # (size, place), sorted
    _size_at: dict[int, int] = field(default_factory=dict)  # place of a hole -> its size
    _place_before: dict[int, int] = field(default_factory=dict)  # end of a hole -> its place
    _taken: dict[int, tuple[int, int]] = field(default_factory=dict)  # block -> place, size

    def take(self, block: int, size: int) -> None:
        size = -(-(size + _HEADER) // _UNIT) * _UNIT
        self._number += 1
        lost = _AHEAD if self.seeks_more and self._number % _TAKEN_EVERY == 0 else 0
        best = bisect_left(self._holes, (size + (_MORE if self.seeks_more else 0), 0))
        if best < len(self._holes):
            room, place = self._holes[best]
            self._fill(place)
            if room > size + lost:
                self._open(place + size + lost, room - size - lost)
        else:
            place = self._place_before.get(self.top, self.top)
            if place != self.top:
                self._fill(place)
            self.top = place + size + lost
        self._taken[block] = (place + lost, size)

    def free(self, block: int) -> None:
        place, size = self._taken.pop(block)
        if (behind := self._size_at.get(place + size)) is not None:
            self._fill(place + size)
            size += behind
        if (before := self._place_before.get(place)) is not None:
            size += place - before
            self._fill(before)
            place = before
        self._open(place, size)

    def _open(self, place: int, size: int) -> None:
        insort(self._holes, (size, place))
        self._size_at[place], self._place_before[place + size] = size, place

    def _fill(self, place: int) -> None:
        size = self._size_at.pop(place)
        del self._place_before[place + size]
        del self._holes[bisect_left(self._holes, (size, place))]
