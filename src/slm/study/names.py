"""What tells runs apart, in as few and as short names as will do."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from slm.study.recorded_settings import key_values
from slm.study.run_record import OF_THE_FOLDER, SEED, RunRecord, differing


def value_of(run: RunRecord, key: str) -> Any:
    """Of a setting, or of a choice that was typed: ``optimizer.lr``, ``recipe``; None of a run without it."""
    return run.settings[key] if key in run.settings else typed(run).get(key)


def typed(run: RunRecord) -> dict[str, str]:
    """Key -> value of the overrides of a run's command line, those of its folder left out."""
    return {key: value for key, value in key_values(run.overrides).items() if key not in OF_THE_FOLDER}


def telling(runs: Sequence[RunRecord], with_seed: bool = False) -> list[str]:
    """The keys that tell `runs` apart: those that were typed, where these tell apart all that differs (one choice can
    stand for twenty settings, and a width changes the rate that follows from it); else every setting that differs."""
    but = OF_THE_FOLDER if with_seed else {*OF_THE_FOLDER, SEED}
    keys = differing(runs, but)
    asked = [key for key in _asked(runs) if key not in but and _can_tell(key, keys) and _varies(key, runs)]
    return asked if _partition(asked, runs) == _partition(keys, runs) else keys


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Key -> as much of its end as names it among `keys`: ``lr`` for ``optimizer.lr``."""
    names = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[place:]) for place in range(len(parts) - 1, -1, -1)]
        alone = (end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1)
        names[key] = next(alone, key)
    return names


def in_words(values: Mapping[str, Any]) -> str:
    """``lr=0.001 dim=64``."""
    return " ".join(f"{name}={_shown(value)}" for name, value in values.items())


def _asked(runs: Sequence[RunRecord]) -> Iterable[str]:
    return dict.fromkeys(key for run in runs for key in typed(run))


def _can_tell(key: str, keys: Sequence[str]) -> bool:
    """A setting that differs, or a choice (of a group of settings, one of which differs; of a whole recipe)."""
    return key in keys or ("." not in key and (key in _OF_EVERYTHING or any(one.startswith(f"{key}.") for one in keys)))


_OF_EVERYTHING = ("recipe", "experiment", "size")


def _varies(key: str, runs: Sequence[RunRecord]) -> bool:
    return len({_hashable(value_of(run, key)) for run in runs}) > 1


def _partition(keys: Sequence[str], runs: Sequence[RunRecord]) -> set[frozenset[int]]:
    """Which runs have the same values for all `keys`."""
    groups: dict[Hashable, set[int]] = {}
    for place, run in enumerate(runs):
        groups.setdefault(tuple(_hashable(value_of(run, key)) for key in keys), set()).add(place)
    return {frozenset(group) for group in groups.values()}


def _hashable(value: Any) -> Hashable:
    """1 and 1.0 are one setting, 1 and true are not."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else json.dumps(value, default=str)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
