"""Command lines that make runs, and whole sweeps, again."""

from __future__ import annotations

import shlex
from pathlib import Path

from slm.study.run_record import RunRecord, sessions_of
from slm.study.sweep.asked import Asked, read_asked
from slm.study.sweep.space import Choice, Dimension, space_of

_FLAG = "--config-dir"
_SHOWN = ("trials", "pruner", "prune_by")  # settings of a sweep that change what it comes to
_DEFAULTS = {"pruner": "none", "prune_by": "step", "seed": 1}


def command_of(run: RunRecord) -> str:
    """``slm-train`` with what the run was given, ``--config-dir`` too, which is no setting."""
    words = next((one.get("command") for one in sessions_of(run.record)), None)
    words = [str(word) for word in words] if isinstance(words, list) else []
    flags = [word for word in words if word.startswith(f"{_FLAG}=")]
    if _FLAG in words[:-1]:
        flags.append(f"{_FLAG}={words[words.index(_FLAG) + 1]}")
    return shlex.join(["slm-train", *flags, *run.overrides])


def command_of_study(folder: Path) -> str | None:
    """``slm-train -m`` with what the sweep in `folder` was given, and the folder that it was typed in; None of a folder
    that holds no study. `UserError`: its ``study.json`` is damaged."""
    asked = read_asked(folder)
    if asked is None:
        return None
    space = space_of(asked.space)
    varied = [f"{dimension.key}={_values(dimension)}" for dimension in space.dimensions]
    seeds = [f"seed={','.join(str(seed) for seed in space.seeds)}"] if space.seeds != (None,) else []
    words = ["slm-train", "-m", *asked.flags, *asked.fixed, *varied, *seeds, *_of_the_sweep(asked)]
    return f"cd {shlex.quote(asked.directory)}\n{shlex.join([*words, f'run_dir={folder}'])}"


def _values(dimension: Dimension) -> str:
    if isinstance(dimension, Choice):
        return ",".join(dimension.values)
    interval = f"interval({dimension.low:g},{dimension.high:g})"
    return f"tag(log,{interval})" if dimension.is_log else interval


def _of_the_sweep(asked: Asked) -> list[str]:
    """The choice of `sweep`, and what of its settings is another than the default."""
    told = {name: asked.sweep.get(name) for name in (*_SHOWN, "seed")}
    kind = [] if asked.sweep.get("kind") == "grid" else [f"sweep={asked.sweep.get('kind')}"]
    return kind + [
        f"sweep.{name}={value}" for name, value in told.items() if value is not None and value != _DEFAULTS.get(name)
    ]
