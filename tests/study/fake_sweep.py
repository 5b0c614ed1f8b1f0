"""A sweep of `fake_trial` in a process of its own: ``python fake_sweep.py FOLDER JSON-OF-SETTINGS``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slm.errors import Stopped
from slm.study.sweep.asked import read_asked
from slm.study.sweep.config import SweepConfig, sweep_config
from slm.study.sweep.server import TrialServer
from slm.study.sweep.space import Choice, Space
from slm.study.sweep.study import Study, asked_now
from slm.study.sweep.sweeping import Sweeping
from slm.study.sweep.table import write_table
from slm.study.sweep.told import Files
from slm.study.sweep.trials import Trial

DEFAULTS: dict[str, Any] = {
    "kind": "grid", "trials": None, "seed": 1, "workers": 1, "threads": 1, "memory": None, "pruner": "none",
    "prune_by": "step", "retry_failed": False, "storage": None, "join": None,
}  # fmt: skip
RATES = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6")


def config_of(**changes: Any) -> SweepConfig:
    return sweep_config({**DEFAULTS, **changes})


def study_of(
    folder: Path, config: SweepConfig, rates: Sequence[str] = RATES, seeds: Sequence[str] = ("1", "2")
) -> Study:
    space = Space((Choice("lr", tuple(rates)),), tuple(seeds))
    study = Study(folder, read_asked(folder) or asked_now(folder, ([], []), space, config, 1), config)
    study.open()
    return study


def sweeping(study: Study, watchers: Sequence[Any] = (), waits: bool = True) -> Sweeping:
    def command(trial: Trial, stop_at: int | None) -> list[str]:
        stop = [] if stop_at is None else [f"stop_after={stop_at}"]
        given = [f"{key}={value}" for key, value in trial.values.items()]
        return ["fake", *given, f"run_dir={study.folder / trial.folder}", *stop]

    return Sweeping(study, command, lambda: TrialServer("fake_trial", 1), [Files(study), *watchers], waits)


def main() -> None:
    settings = json.loads(sys.argv[2])
    waits = not settings.pop("joins", False)
    given = {name: settings.pop(name) for name in ("rates", "seeds") if name in settings}
    study = study_of(Path(sys.argv[1]), config_of(**settings), **given)
    try:
        sweeping(study, waits=waits).run()
    except Stopped:
        sys.exit(75)
    write_table(study.folder, study.all(), [])


if __name__ == "__main__":
    main()
