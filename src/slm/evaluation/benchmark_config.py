"""Which benchmarks a model is put to, as `conf/evaluate.yaml` and `conf/callbacks/evaluation.yaml` say. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from slm.errors import UserError, refuse
from slm.schema import FORBID_EXTRA, Count, Flag, NonNegativeInt, PositiveFloat, Text, checked

Paths = Text | list[Text] | None


@dataclass(frozen=True)
class FileSettings:
    """Where a benchmark's files lie: some, or folders of them."""

    __pydantic_config__ = FORBID_EXTRA
    path: Paths = None


@dataclass(frozen=True)
class CoreSettings:
    """The unpacked folder of CORE's data (core.yaml, eval_meta_data.csv, eval_data/)."""

    __pydantic_config__ = FORBID_EXTRA
    path: Text | None = None


@dataclass(frozen=True)
class InContextSettings:
    """Text files, by default what the run validates on, and which two positions are compared."""

    __pydantic_config__ = FORBID_EXTRA
    path: Paths = None
    early: Count = 50
    late: Count | Literal["auto"] = "auto"  # 500, or the last position that the model, or a window, has

    def __post_init__(self) -> None:
        if self.late != "auto" and self.late <= self.early:
            raise ValueError(f"late must be after early ({self.early}); got {self.late}")


@dataclass(frozen=True)
class InductionSettings:
    """Random tokens, `length` of them, once more."""

    __pydantic_config__ = FORBID_EXTRA
    length: Count = 64
    sequences: Count = 64
    seed: NonNegativeInt = 1


@dataclass(frozen=True)
class BabylmSettings:
    """The BabyLM challenge's folder of evaluation data (fast_eval or full_eval)."""

    __pydantic_config__ = FORBID_EXTRA
    path: Text | None = None


OWN: dict[str, type] = {
    "minimal_pairs": FileSettings,
    "surprisal": FileSettings,
    "choices": FileSettings,
    "core": CoreSettings,
    "in_context": InContextSettings,
    "induction": InductionSettings,
    "babylm": BabylmSettings,
}
"""Benchmarks that are made here; every other name is a task of lm-eval's."""
OF_HARNESS = ("num_fewshot", "include_path", "apply_chat_template", "system", "gen_kwargs", "unsafe_code")
"""Settings that lm-eval's tasks alone read."""
NEEDS_PATH = ("minimal_pairs", "surprisal", "choices", "core", "babylm")


@dataclass(frozen=True)
class BenchmarkConfig:
    """What is asked, and how much of it."""

    __pydantic_config__ = FORBID_EXTRA
    tasks: list[Text] = field(default_factory=list)
    limit: PositiveFloat | None = None  # items of each task, the first ones; below 1 a share of them
    batch_size: Count = 16
    minimal_pairs: FileSettings = field(default_factory=FileSettings)
    surprisal: FileSettings = field(default_factory=FileSettings)
    choices: FileSettings = field(default_factory=FileSettings)
    core: CoreSettings = field(default_factory=CoreSettings)
    in_context: InContextSettings = field(default_factory=InContextSettings)
    induction: InductionSettings = field(default_factory=InductionSettings)
    babylm: BabylmSettings = field(default_factory=BabylmSettings)
    num_fewshot: NonNegativeInt | None = None  # examples ahead of a question; None: as the task says
    include_path: Paths = None  # folders with tasks' YAML files
    apply_chat_template: Flag = False
    system: Text | None = None
    gen_kwargs: dict[Text, Any] = field(default_factory=dict)
    unsafe_code: Flag = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit >= 1 and self.limit != int(self.limit):
            raise ValueError(f"limit is a whole number of items, or a share of them below 1; got {self.limit}")
        doubled = sorted({name for name in self.tasks if self.tasks.count(name) > 1})
        if doubled:
            raise ValueError(f"tasks names {', '.join(doubled)} more than once; name each once")
        for name in self.own:
            if name in NEEDS_PATH and getattr(self, name).path is None:
                raise ValueError(f"{name}.path is missing: the task reads files of yours; set it: {name}.path=…")

    @property
    def own(self) -> list[str]:
        """The tasks that are made here."""
        return [name for name in self.tasks if name in OWN]

    @property
    def of_harness(self) -> list[str]:
        """The tasks of lm-eval's."""
        return [name for name in self.tasks if name not in OWN]

    def taken(self, n_items: int) -> int:
        """How many of a task's items `limit` leaves."""
        if self.limit is None:
            return n_items
        return max(1, int(self.limit * n_items)) if self.limit < 1 else min(int(self.limit), n_items)


def benchmark_config(values: Mapping[str, Any], where: str = "") -> BenchmarkConfig:
    """Of plain types; `UserError` with a line for each problem, among them settings that none of the tasks reads."""
    known = {one.name for one in fields(BenchmarkConfig)}
    config = checked(BenchmarkConfig, {key: value for key, value in values.items() if key in known}, where)
    prefix, plain = f"{where}." if where else "", BenchmarkConfig()
    unread = [name for name in OWN if name not in config.tasks] + ([] if config.of_harness else list(OF_HARNESS))
    refuse(
        f"{prefix}{name} is set, and no task that {prefix}tasks names reads it: name one that does, or leave it out"
        for name in unread
        if getattr(config, name) != getattr(plain, name)
    )
    return config


def files_at(paths: Paths, suffixes: tuple[str, ...], setting: str) -> list[Path]:
    """The files that `paths` name: themselves, and those of a folder with one of `suffixes`, sub-folders too, in order.
    `UserError` where there is none."""
    found: list[Path] = []
    for path in [paths] if isinstance(paths, str) else paths or []:
        place = Path(path).expanduser()
        inside = (
            sorted(file for suffix in suffixes for file in place.rglob(f"*{suffix}")) if place.is_dir() else [place]
        )
        if not inside or not inside[0].is_file():
            kinds = " or ".join(suffixes)
            raise UserError(f"{setting}: there is no file '{path}', nor a folder with {kinds} files; name one")
        found += inside
    return found
