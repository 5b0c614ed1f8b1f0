"""The largest micro-batch that fits into a memory, with the tokens of an optimizer step kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from slm.errors import UserError
from slm.schema import bytes_of
from slm.study.plan.memory import Memory
from slm.study.plan.planned import PlannedRun

MemoryOf = Callable[[PlannedRun], Memory]


@dataclass(frozen=True)
class Fit:
    """What fits."""

    room: int  # bytes
    settings: tuple[str, ...]  # as one types them; beside what is given already
    memory: Memory | None  # None where nothing does


def room_of(value: object) -> int | None:
    """A size in bytes, None for none; `UserError` for what is no size."""
    room = bytes_of(value)
    if room is None and value is not None:
        raise UserError(f"fit must be a size of memory, e.g. 24GiB or 8GB; got {value!r}")
    return room


def fitted(run: PlannedRun, room: int, memory_of: MemoryOf) -> Fit:
    """As set; where not even one window fits, with ``recompute``; then at half precision beside."""
    for changed in _ways(run):
        found = largest(changed, room, memory_of)
        if found is not None:
            windows, memory = found
            settings = [f"trainer.batch_size={windows}", f"trainer.global_batch_size={run.windows_a_step}"]
            if changed.config.trainer.recompute and not run.config.trainer.recompute:
                settings.append("trainer.recompute=true")
            if changed.precision != run.precision:
                settings.append("trainer.precision=bf16")
            return Fit(room, tuple(settings), memory)
    return Fit(room, (), None)


def _ways(run: PlannedRun) -> Iterator[PlannedRun]:
    yield run
    lean: dict[str, Any] = {"recompute": True}
    if not run.config.trainer.recompute:
        yield run.with_batch(run.config.trainer.windows_at_once, **lean)
    if run.precision == "32-true":
        yield run.with_batch(run.config.trainer.windows_at_once, **lean, precision="bf16").at("bf16-mixed")


def largest(run: PlannedRun, room: int, memory_of: MemoryOf) -> tuple[int, Memory] | None:
    """The largest divisor of a device's windows a step that fits, and its memory; found by halving what is left."""
    whole = run.windows_a_step // run.n_devices
    sizes = [size for size in range(1, whole + 1) if whole % size == 0]
    best: tuple[int, Memory] | None = None
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        memory = memory_of(run.with_batch(sizes[middle]))
        if memory.peak <= room:
            best, low = (sizes[middle], memory), middle + 1
        else:
            high = middle
    return best
