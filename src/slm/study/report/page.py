"""A report as one HTML page that asks nobody for anything."""

from __future__ import annotations

import math
import shlex
from importlib.resources import files
from typing import Any

import jinja2

import slm
from slm.plots.figure import COLOURS, DASHES, as_svg
from slm.plots.intervals import Mean, interval_plot
from slm.study.comparison_table import as_json as comparison_as_json
from slm.study.report.content import Report
from slm.study.report.plots import MOST_DRAWN, OVER, Plot, curve_plots, ladder_plots, parallel_plot

_DASH_ARRAYS = {"solid": "", "dashed": "6 3", "dotted": "2 2", "dashdot": "7 2 2 2"}
_MOST_GROUPS = 40  # that are drawn


def render(report: Report) -> str:
    """The page, with its style, its script and its plots inside."""
    folder = files("slm.study.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(figure=figure, count=count, duration=duration, quoted=shlex.quote)
    template = environment.from_string((folder / "page.html.jinja").read_text(encoding="utf-8"))
    comparison = comparison_as_json(report.comparison) if report.comparison else None
    return template.render(
        report=report,
        style=(folder / "page.css").read_text(encoding="utf-8"),
        script=(folder / "page.js").read_text(encoding="utf-8"),
        version=slm.__version__,
        curves=curve_plots(report),
        over=OVER,
        most_drawn=MOST_DRAWN,
        comparison=comparison,
        means=_means(report),
        parallel=parallel_plot(report),
        ladder=ladder_plots(report),
        swatch=swatch,
    )


def swatch(number: int) -> dict[str, str]:
    """Colour and dashes of a run's line, as SVG has them."""
    return {
        "colour": f"var(--line-{number % len(COLOURS)})",
        "dashes": _DASH_ARRAYS[DASHES[number // len(COLOURS) % len(DASHES)]],
    }


def _means(report: Report) -> Plot | None:
    if report.comparison is None or len(report.comparison.groups) < 2:
        return None
    pairs = list(zip(report.comparison.groups, report.comparison.spreads, strict=True))[:_MOST_GROUPS]
    means = [Mean(group.name, group.values, own.mean, own.low, own.high) for group, own in pairs]
    figure = interval_plot(means, "validation loss (nats per token)")
    said = f"mean validation loss of {len(means)} settings, from {means[0].mean:.4g} to {means[-1].mean:.4g}"
    return Plot("each seed, the mean, and its interval", {"": as_svg(figure, "means", said)})


def figure(value: Any, digits: int = 4) -> str:
    """A number, or a dash."""
    return f"{value:.{digits}f}" if isinstance(value, int | float) and math.isfinite(value) else "–"


def count(value: Any) -> str:
    """``1,234``; from ten million on ``12.3 M``."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= 10 * size or (value >= size and size > 1e6):
            return f"{value / size:,.1f} {unit}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """``1 h 05 min``."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"
