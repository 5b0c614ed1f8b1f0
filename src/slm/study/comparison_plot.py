"""A comparison as a picture: the curves of the groups, and their means with what is known of them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slm.errors import UserError
from slm.files.writing import new_file
from slm.study.compare import Comparison
from slm.study.curves import Axis
from slm.study.grouping import Group, Readings
from slm.study.statistics import spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = ("png", "svg")
_LABELS: dict[Axis, str] = {
    "steps": "optimizer steps",
    "tokens": "tokens",
    "time": "seconds of training",
    "flops": "floating-point operations",
}
_LONGEST = 40  # letters of a line of a name
_MOST_NAMES = 24  # of groups that are drawn: more nobody tells apart


def check_ending(file: Path) -> None:
    """`UserError` for a picture of another kind."""
    if file.suffix.lower().removeprefix(".") not in ENDINGS:
        raise UserError(f"plot: '{file}' ends in none of {', '.join(f'.{ending}' for ending in ENDINGS)}; name it so")


def save(comparison: Comparison, file: Path) -> None:
    """Draw it into `file`; `UserError` if that cannot be written."""
    drawing = figure(comparison)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with new_file(file) as out:
            drawing.savefig(out, format=file.suffix.lower().removeprefix("."), dpi=150)
    except OSError as error:
        raise UserError(f"plot: '{file}' cannot be written ({error.strerror or error}); name another place") from None


def figure(comparison: Comparison) -> Figure:
    """Curves on the left, means at the place of the comparison on the right, in the same colours."""
    from matplotlib.figure import Figure  # no pyplot: nothing is to stay, and no window to open

    groups, measured = comparison.groups[:_MOST_NAMES], f"validation {comparison.readings.by.replace('_', ' ')}"
    names = [textwrap.fill(group.name, _LONGEST) for group in groups]
    n_lines = sum(name.count("\n") + 1 for name in names)
    drawing = Figure(figsize=(12, max(4.5, 1.5 + 0.2 * n_lines + 0.1 * len(groups))), layout="constrained")
    left, right = drawing.subplots(1, 2)
    colours = {group.name: f"C{place % 10}" for place, group in enumerate(groups)}
    for group in groups:
        _draw_curves(left, group, comparison.readings, colours[group.name])
    left.axvline(comparison.readings.place, color="0.6", linewidth=0.8, linestyle=":")
    left.set(xlabel=_LABELS[comparison.readings.at], ylabel=measured)
    _draw_means(right, groups, comparison.level, list(colours.values()))
    right.set_yticks(range(len(groups)), names)
    right.set(xlabel=measured, title=f"seeds, mean, its {100 * comparison.level:g} % interval")
    return drawing


def _draw_curves(axes: Axes, group: Group, readings: Readings, colour: str) -> None:
    """Each seed's, thin: a mean of curves hides one that went astray."""
    for reading in group.readings:
        points = reading.run.metrics.points(f"val/{readings.by}", readings.at, reading.run.flops_per_token)
        axes.plot([x for x, _ in points], [y for _, y in points], ".-", color=colour, linewidth=1.0, markersize=3)


def _draw_means(axes: Axes, groups: Sequence[Group], level: float, colours: Sequence[str]) -> None:
    for place, (group, colour) in enumerate(zip(groups, colours, strict=True)):
        own = spread(group.values, level)
        axes.plot(group.values, [place] * own.n, "|", color=colour, markersize=9)
        axes.plot([own.mean], [place], "o", color=colour)
        if not math.isnan(own.low):
            axes.plot([own.low, own.high], [place, place], color=colour, linewidth=1.5)
    axes.invert_yaxis()
