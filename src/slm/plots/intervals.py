"""Means and how far they are known, a line a group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slm.plots.figure import COLOURS, INK, look, new_figure, with_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST_NAME = 34


@dataclass(frozen=True)
class Mean:
    """Of a group: its values, their mean, and the interval's ends, nan where there is none."""

    name: str
    values: Sequence[float]
    mean: float
    low: float
    high: float


def interval_plot(means: Sequence[Mean], x_label: str) -> Figure:
    """The first one above; a stroke a value, a dot for the mean, a bar for its interval."""
    with look():
        figure = new_figure(6.4, 0.9 + 0.27 * len(means))
        axes = with_grid(figure.subplots())
        for place, one in enumerate(means):
            axes.plot(one.values, [place] * len(one.values), "|", color=INK, alpha=0.6, markersize=8)
            if math.isfinite(one.low):
                axes.plot([one.low, one.high], [place, place], color=COLOURS[0], linewidth=2)
            axes.plot([one.mean], [place], "o", color=COLOURS[0], markersize=5)
        names = [one.name if len(one.name) <= _LONGEST_NAME else f"{one.name[: _LONGEST_NAME - 1]}…" for one in means]
        axes.set_yticks(range(len(means)), names, parse_math=False)
        axes.invert_yaxis()
        axes.set_xlabel(x_label)
    return figure
