"""What a run's folder tells of its model, for the card that goes out with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.files.reading import read_json_object
from slm.study.report.again import command_of
from slm.study.run_record import RunRecord, read_run, sessions_of
from slm.training.run.folder import RECORD_FILE, TIME
from slm.weights.model_card import Score, Story

_RESULTS = "evaluations/*/results.json"  # that slm-evaluate tasks=… wrote, the newest last
_SETTINGS = {
    "seed": "seed",
    "trainer.global_batch_size": "windows a step",
    "data.seq_len": "tokens a window",
    "optimizer._target_": "optimizer",
    "optimizer.lr": "learning rate",
    "scheduler.name": "schedule",
}


def story_of(run: Path, license: str | None = None, of_best: bool = True) -> Story:
    """Of the run in folder `run`; of a folder that is none, nothing but the `license`. What was counted at its end, and
    measured of its best model, is left out where the state is not that (`of_best`)."""
    if not (run / RECORD_FILE).is_file():
        return Story(license=license)
    record = read_run(run)
    hub = [str(record.settings[key]) for key in ("data.path",) if record.settings.get("data.kind") == "datasets"]
    weights = record.settings.get("model.weights")
    base = str(weights) if weights is not None and _is_hub_name(str(weights)) else None
    scores = [*_validation(record), *_measured(run)] if of_best else []
    names = [name for name in hub if _is_hub_name(name)]
    return Story(
        dict([*_facts(record), *(_counts(record) if of_best else ())]), command_of(record), scores, license, names, base
    )


def _is_hub_name(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()


def _facts(run: RunRecord) -> Iterator[tuple[str, Any]]:
    settings = run.settings
    yield "data", _data(settings)
    for key, name in _SETTINGS.items():
        if settings.get(key) is not None:
            yield name, str(settings[key]).rpartition(".")[2] if key.endswith("_target_") else settings[key]
    yield "precision", run.record.get("precision")
    yield from _machine(sessions_of(run.record)[-1:])
    if run.commit:
        yield "commit", run.commit


def _counts(run: RunRecord) -> Iterator[tuple[str, Any]]:
    """Of the whole run."""
    summary = run.summary
    yield "run: steps", f"{run.step:,}"
    for key in ("words", "tokens"):
        if key in summary:
            yield f"run: {key} read", f"{summary[key]:,}"
    if "tokens" in summary and math.isfinite(run.flops_per_token):
        yield "run: operations", f"{run.flops_per_token * summary['tokens']:.3g} FLOP"
    if (time := _time(run)) is not None:
        yield "run: time", str(time)


def _data(settings: Mapping[str, Any]) -> str:
    """The kind, and the last name of where it lies: the rest is the maker's own."""
    path = settings.get("data.path")
    name = "" if path is None else str(path) if settings.get("data.kind") == "datasets" else Path(str(path)).name
    return " ".join(filter(None, [str(settings.get("data.kind", "")), name, str(settings.get("data.size") or "")]))


def _time(run: RunRecord) -> timedelta | None:
    """Of all sessions that noted when they ended, one after another."""
    spans = [(one.get("started"), one.get("ended")) for one in sessions_of(run.record)]
    try:
        took = [datetime.strptime(end, TIME) - datetime.strptime(start, TIME) for start, end in spans if start and end]
    except (TypeError, ValueError):
        return None
    return sum(took, timedelta()) if took else None


def _machine(sessions: list[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    for session in sessions:
        environment = session.get("environment") or {}
        ranks = environment.get("ranks") or 1
        device = environment.get("gpu") or f"CPU ({environment.get('cpu')}), {environment.get('threads')} threads"
        yield "hardware", f"{ranks} x {device}" if ranks > 1 else device
        versions = session.get("versions") or {}
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())


def _validation(run: RunRecord) -> Iterator[Score]:
    """Of the best model, where that is the last; of another its loss alone."""
    summary, name = run.summary, _data(run.settings)
    yield Score(name, "loss", run.best_val_loss, "validation")
    if summary.get("best_step") == summary.get("step"):
        for metric in ("perplexity", "bits_per_byte"):
            if isinstance(value := summary.get(f"val_{metric}"), (int, float)):
                yield Score(name, metric, float(value), "validation")


def _measured(run: Path) -> list[Score]:
    """What slm-evaluate found of its tasks: of each the newest."""
    found: dict[tuple[str, str], Score] = {}
    for file in sorted(run.glob(_RESULTS)):
        try:
            results = read_json_object(file)
        except UserError:
            continue
        if results.get("limit") is not None or results.get("checkpoint", "best") != "best":
            continue  # of some items alone, or of another state
        tasks = results.get("tasks")
        for task, figures in tasks.items() if isinstance(tasks, dict) else ():
            for metric, value in figures.items() if isinstance(figures, dict) else ():
                if isinstance(value, float):
                    found[task, metric] = Score(task, metric, value)
    return list(found.values())
