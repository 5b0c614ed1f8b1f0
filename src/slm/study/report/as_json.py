"""A report as plain types; docs/json.md describes the fields."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from slm.files.plain_json import without_nan
from slm.plots.thinning import thinned
from slm.study.comparison_table import as_json as comparison_as_json
from slm.study.ladder.fits import LawFit
from slm.study.report.content import Report, Row
from slm.study.report.plots import CURVES

_MOST_POINTS = 400  # of a curve


def as_json(report: Report) -> dict[str, Any]:
    """All of it, with curves of at most 400 points each."""
    content = {
        "title": report.title,
        "made": report.made,
        "studies": report.studies,
        "common_overrides": report.common,
        "runs": [_run(report, row) for row in report.rows],
        "totals": {name: report.total(name) for name in ("seconds", "tokens", "flops")},
        "comparison": comparison_as_json(report.comparison) if report.comparison else None,
        "why_no_comparison": report.why_no_comparison or None,
        "ladder": {"points": [asdict(rung) for rung in report.rungs], "laws": [_law(law) for law in report.laws]}
        if report.laws
        else None,
        "environment": asdict(report.environment),
    }
    known: dict[str, Any] = without_nan(content)
    return known


def _run(report: Report, row: Row) -> dict[str, Any]:
    run = row.run
    return {
        "run": str(run.folder),
        "name": row.name,
        "state": run.state,
        "error": run.error,
        "settings": {key: row.settings[name] for key, name in report.keys.items()},
        "overrides": run.overrides,
        "command": row.command,
        "directory": row.directory,
        "commit": run.commit,
        "started": run.started.isoformat() if run.started else None,
        "ended": run.ended.isoformat() if run.ended else None,
        "step": run.step,
        "max_steps": run.max_steps,
        "parameters": run.parameters,
        "val_loss": run.best_val_loss,
        "last_val_loss": run.last_val_loss,
        "train_loss": run.train_loss,
        "tokens_per_s": run.tokens_per_s,
        "tokens": row.tokens,
        "seconds": row.seconds,
        "flops": row.flops,
        "sample": report.samples.get(row.number),
        "curves": {name: _curve(row, name) for name in CURVES if run.metrics.points(name)},
    }


def _curve(row: Row, column: str) -> dict[str, list[float]]:
    """Steps, tokens and seconds of each value."""
    metrics = row.run.metrics
    kept = thinned(metrics.points(column), _MOST_POINTS)
    places = {step: place for place, step in enumerate(metrics.steps)}
    at = [places[step] for step, _ in kept]
    return {
        "steps": [step for step, _ in kept],
        "tokens": [metrics.tokens[place] for place in at],
        "seconds": [metrics.seconds[place] for place in at],
        "values": [value for _, value in kept],
    }


def _law(found: LawFit) -> dict[str, Any]:
    return {
        "law": found.law.text,
        "variables": list(found.law.variables),
        "source": found.law.source,
        "points": found.points,
        "is_carried": found.is_carried,
        "problems": list(found.problems),
        "exponents": [asdict(one) for one in found.exponents],
        "scales": list(found.scales),
        "floor": asdict(found.floor) if found.floor else None,
        "spread": found.spread,
    }
