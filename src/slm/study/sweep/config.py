"""The settings of a sweep: what `conf/sweep` holds, typed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from slm.errors import refuse
from slm.schema import FORBID_EXTRA, Count, Flag, Seed, Text, bytes_of, checked

_STORAGES = ("postgresql://", "postgresql+psycopg://", "sqlite:///")


@dataclass(frozen=True)
class SweepConfig:
    """A sweep; ``conf/sweep/grid.yaml`` has a line on each setting."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["grid", "random", "tpe"]
    trials: Count | None
    seed: Seed
    workers: Count
    threads: Count | None
    memory: Text | None
    pruner: Literal["none", "median", "asha", "wilcoxon"]
    prune_by: Literal["step", "time"]
    retry_failed: Flag
    storage: Text | None
    join: Text | None

    @property
    def memory_bytes(self) -> int | None:
        """Most main memory of a trial."""
        return bytes_of(self.memory)


def sweep_config(values: Mapping[str, Any]) -> SweepConfig:
    """`UserError` with a line for each problem."""
    config = checked(SweepConfig, values, "sweep")
    problems = []
    if config.kind == "grid" and config.trials is not None:
        problems.append("sweep.trials: a grid tries every combination; sweep=random or sweep=tpe tries so many")
    if config.kind != "grid" and config.trials is None:
        problems.append(f"sweep.trials is missing; sweep={config.kind} needs to know how many settings to try")
    if config.pruner == "wilcoxon" and config.prune_by == "time":
        problems.append("sweep.prune_by=time: wilcoxon pairs losses of equal steps; leave it at step, or take median")
    if config.memory is not None and config.memory_bytes is None:
        problems.append(f"sweep.memory should be a size, e.g. 4GiB or 800MB; got '{config.memory}'")
    if config.storage is not None and not config.storage.startswith(_STORAGES):
        problems.append("sweep.storage should begin with postgresql:// or sqlite:///, or be null (a file of the study)")
    refuse(problems)
    return config
