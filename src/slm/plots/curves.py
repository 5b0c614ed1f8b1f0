"""Curves of training: of one run for its folder and a notebook, of many for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slm.plots.figure import COLOURS, Points, look, new_figure, panel_of_many, style_of, with_grid
from slm.plots.thinning import thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_POINTS = 4000  # of all lines of a figure together
_FEWEST_POINTS = 40  # of a line, however many there are
_WITH_MARKS = 30  # a line of fewer points shows each of them


@dataclass(frozen=True)
class Line:
    """The line of run `number`, which says its colour; `points` are (x, y)."""

    number: int
    points: Points = field(repr=False)


def run_curve(training: Points, validation: Points, lr: Points) -> Figure:
    """Loss in nats per token, training and validation, over optimizer steps, and the learning rate below."""
    with look():
        figure = new_figure(6.4, 4.0)
        above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
        _draw(above, training, COLOURS[0], "training")
        _draw(above, validation, COLOURS[1], "validation")
        _draw(below, lr, COLOURS[2], "learning rate")
        with_grid(above).set_ylabel("loss (nats per token)")
        with_grid(below).set_ylabel("learning rate")
        below.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        below.set_xlabel("optimizer step")
        if training or validation:
            above.legend()
    return figure


def many_curves(lines: Sequence[Line], x_label: str, robust: bool = False) -> Figure:
    """A line a run, in the colours of their numbers; what it is of stands in a caption. `robust`: the axis shows where
    98 % of all values lie, whatever spikes there are."""
    with look():
        figure, axes = panel_of_many()
        most = max(_FEWEST_POINTS, _MOST_POINTS // max(1, len(lines)))
        for line in lines:
            points = thinned(line.points, most)
            marker = "o" if len(points) <= _WITH_MARKS else ""
            axes.plot(*_columns(points), linewidth=1.4, marker=marker, markersize=3, **style_of(line.number))
        axes.set_xlabel(x_label)
        if robust:
            _show_most(axes, [y for line in lines for _, y in line.points])
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 5))
    return figure


def _draw(axes: Axes, points: Points, colour: str, label: str) -> None:
    few = len(points) <= _WITH_MARKS
    columns = _columns(thinned(points, _MOST_POINTS))
    axes.plot(*columns, color=colour, label=label, marker="o" if few else "", markersize=3, linewidth=1.4)


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _show_most(axes: Axes, values: Sequence[float]) -> None:
    """Without the highest and the lowest hundredth, where these would take most of the room."""
    ordered = sorted(values)
    if len(ordered) < 50:
        return
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.01, 0.99))
    room = 0.08 * (high - low)
    if room > 0:
        axes.set_ylim(low - room, high + room)
