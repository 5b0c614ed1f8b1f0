"""Parallel coordinates: settings side by side, a line a run, the stronger the better its result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slm.plots.figure import COLOURS, FAINT, INK, RUN_GROUP, look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LONGEST_NAME, _MOST_NAMES = 18, 8
_FAR_APART = 20.0  # numbers above 0 of which the largest is so many times the smallest stand by their logarithms


@dataclass(frozen=True)
class Axis:
    """A setting, or a result, and its value in every run, in the runs' order; numbers are finite."""

    name: str
    values: Sequence[Any]


def parallel_coordinates(axes: Sequence[Axis], runs: Sequence[int]) -> Figure:
    """An upright axis each; the last one is the result: the lower it is, the stronger a run's line. `runs` are their
    numbers."""
    places = [_places(axis.values) for axis in axes]
    with look():
        figure = new_figure(max(4.8, 1.25 * len(axes)), 3.4)
        panel = figure.subplots()
        for at, axis in enumerate(axes):
            _draw_axis(panel, at, axis.name, places[at][1])
        results = places[-1][0]
        for index in sorted(range(len(runs)), key=lambda one: -results[one]):  # the best in front
            heights = [found[index] for found, _ in places]
            style: dict[str, Any] = {"color": COLOURS[0], "alpha": 1 - 0.8 * results[index], "linewidth": 1.5}
            panel.plot(range(len(axes)), heights, gid=f"{RUN_GROUP}{runs[index]}", **style)
        panel.set_xlim(-0.4, len(axes) - 0.4)
        panel.set_ylim(-0.06, 1.2)
        panel.set_axis_off()
    return figure


def _places(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights from 0 to 1 of the values, and the marks of their axis."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        scaled = [float(value) for value in values]
        if scaled and min(scaled) > 0 and max(scaled) > _FAR_APART * min(scaled):
            scaled = [math.log(value) for value in scaled]
        distinct = dict(sorted(zip(scaled, (f"{value:.4g}" for value in values), strict=True)))
    else:
        names = sorted({_short(value) for value in values})
        order = {name: float(at) for at, name in enumerate(names)}
        scaled, distinct = [order[_short(value)] for value in values], {at: name for name, at in order.items()}
    low, high = (min(scaled), max(scaled)) if scaled else (0.0, 0.0)
    heights = {value: (value - low) / (high - low) if high > low else 0.5 for value in distinct}
    marks = [(heights[value], name) for value, name in distinct.items()]
    return [heights[value] for value in scaled], _some(marks)


def _some(marks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those that do not stand on each other, both ends among them."""
    kept = marks[:1]
    for mark in marks[1:-1]:
        if mark[0] - kept[-1][0] >= 1 / _MOST_NAMES and marks[-1][0] - mark[0] >= 1 / _MOST_NAMES:
            kept.append(mark)
    return [*kept, *marks[1:][-1:]]


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST_NAME else f"…{text[1 - _LONGEST_NAME :]}"


def _draw_axis(panel: Axes, at: int, name: str, marks: Sequence[tuple[float, str]]) -> None:
    panel.plot([at, at], [0, 1], color=FAINT, linewidth=1)
    short = name if len(name) <= _LONGEST_NAME else name.rpartition(".")[2]
    panel.text(at, 1.1 + 0.07 * (at % 2), short, ha="center", color=INK, parse_math=False)
    for height, text in marks:
        panel.text(at + 0.04, height, text, va="center", fontsize=8, color=INK, parse_math=False, zorder=9)
