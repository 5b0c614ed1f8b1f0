"""The plots of a report, as SVG for its page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slm.plots.curves import Line, many_curves
from slm.plots.figure import as_svg
from slm.plots.parallel import Axis, parallel_coordinates
from slm.plots.scaling import scaling_plot
from slm.study.curves import Axis as Over
from slm.study.ladder.fits import LawFit, Rung, curve
from slm.study.report.content import Report, Row

MOST_DRAWN = 48
"""Runs whose curves are drawn, the best ones; more are one grey mass, and a large page."""

CURVES = {
    "val/loss": "validation loss (nats per token)",
    "train/loss": "training loss (nats per token)",
    "train/lr": "learning rate",
    "train/grad_norm": "gradient norm",
    "speed/tokens_per_s": "tokens per second",
}
OVER: dict[Over, str] = {"steps": "optimizer steps", "tokens": "tokens learnt", "time": "training time"}
_ROBUST = ("train/grad_norm", "speed/tokens_per_s")


@dataclass(frozen=True)
class Plot:
    """An ``<svg>`` element, and its caption; of a curve by what its x axis has."""

    caption: str
    svgs: Mapping[str, str]


def curve_plots(report: Report) -> list[Plot]:
    """Of each column that some run has."""
    drawn = report.rows[:MOST_DRAWN]
    names = [name for name in CURVES if any(row.run.metrics.points(name) for row in drawn)]
    return [Plot(CURVES[name], {over: _curve(drawn, name, over) for over in OVER}) for name in names]


def _curve(rows: Sequence[Row], column: str, over: Over) -> str:
    unit, label = _unit(rows, over)
    found = [Line(row.number, [(x / unit, y) for x, y in row.run.metrics.points(column, over)]) for row in rows]
    lines = [line for line in found if line.points]
    figure = many_curves(lines, label, robust=column in _ROBUST)
    titles = {row.number: f"{row.name}: {_last(row, column)}" for row in rows}
    return as_svg(figure, f"{column.replace('/', '-')}-{over}", _described(lines, rows, column, over), titles)


def _last(row: Row, column: str) -> str:
    points = row.run.metrics.points(column)
    return f"{points[-1][1]:.5g} at step {points[-1][0]:,.0f}" if points else "none"


def _unit(rows: Sequence[Row], over: Over) -> tuple[float, str]:
    """What x is divided by, and its label."""
    if over == "tokens":
        most = max((row.tokens for row in rows if math.isfinite(row.tokens)), default=0.0)
        units = [(1e9, "tokens learnt (billions)"), (1e6, "tokens learnt (millions)"), (1.0, "tokens learnt")]
        return next((one for one in units if most >= 2 * one[0]), units[-1])
    if over == "time":
        most = max((row.seconds for row in rows if math.isfinite(row.seconds)), default=0.0)
        units = [(3600.0, "hours of training"), (60.0, "minutes of training"), (1.0, "seconds of training")]
        return next((one for one in units if most >= 2 * one[0]), units[-1])
    return 1.0, "optimizer step"


def _described(lines: Sequence[Line], rows: Sequence[Row], column: str, over: Over) -> str:
    """For who does not see it; the table has the figures."""
    names = {row.number: row.name for row in rows}
    ends = [(line.points[-1][1], names[line.number]) for line in lines]
    if not ends:
        return f"{CURVES[column]} over {OVER[over]}: no values"
    low, high = min(ends), max(ends)
    if len(ends) == 1:
        return f"{CURVES[column]} over {OVER[over]}, ending at {low[0]:.4g}"
    return (
        f"{CURVES[column]} over {OVER[over]} of {len(ends)} runs, ending between {low[0]:.4g} ({low[1]}) and "
        f"{high[0]:.4g} ({high[1]})"
    )


def parallel_plot(report: Report) -> Plot | None:
    """Settings that differ and the validation loss; None where there is nothing to see."""
    rows = [row for row in report.rows if math.isfinite(row.loss)]
    names = [name for name in report.keys.values() if len({str(row.settings[name]) for row in rows}) > 1]
    if len(rows) < 2 or not names:
        return None
    shown = names[:_MOST_AXES]
    axes = [Axis(name, [row.settings[name] for row in rows]) for name in shown]
    axes.append(Axis("val loss", [row.loss for row in rows]))
    best = rows[0]
    said = f"{len(rows)} runs by {', '.join(shown)} and validation loss; the best is {best.name} with {best.loss:.4f}"
    titles = {row.number: f"{row.name}: {row.loss:.4f}" for row in rows}
    figure = parallel_coordinates(axes, [row.number for row in rows])
    return Plot("settings and validation loss", {"": as_svg(figure, "parallel", said, titles)})


_MOST_AXES = 8


def ladder_plots(report: Report) -> list[Plot]:
    """Loss over FLOPs, parameters and tokens, each with the law of it that the points carry, one with a floor first."""
    labels = {"flops": "FLOPs", "parameters": "parameters", "tokens": "tokens"}
    return [_ladder_plot(report.rungs, report.laws, name, label) for name, label in labels.items() if report.laws]


def _ladder_plot(rungs: Sequence[Rung], laws: Sequence[LawFit], name: str, label: str) -> Plot:
    points = sorted((getattr(rung, name), rung.loss) for rung in rungs)
    carried = [law for law in laws if law.law.variables == (name,) and law.is_carried]
    best = min(carried, key=lambda law: (not law.law.has_floor, law.spread), default=None)
    line = curve(best, points[0][0], points[-1][0]) if best else []
    said = f"validation loss over {label}, from {points[0][1]:.4g} to {points[-1][1]:.4g}"
    return Plot(
        f"loss over {label}" + ("" if best else ": no law is carried"),
        {"": as_svg(scaling_plot(points, line, label), f"ladder-{name}", said)},
    )
