"""Loss over what it took, on logarithmic axes, with a law through the points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slm.plots.figure import COLOURS, Points, look, new_figure, with_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def scaling_plot(points: Points, law: Points, x_label: str) -> Figure:
    """Runs as points, and the law, which may be empty, as a line."""
    from matplotlib.ticker import NullFormatter

    with look():
        figure = new_figure()
        axes = with_grid(figure.subplots())
        axes.plot([x for x, _ in law], [y for _, y in law], color=COLOURS[1], linewidth=1.4)
        axes.plot([x for x, _ in points], [y for _, y in points], "o", color=COLOURS[0], markersize=4)
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())  # within a decade they stand on each other
        axes.set_xlabel(x_label)
    return figure
