"""Figures of one look, as PNG or as SVG that takes a page's own colours.

Made of matplotlib's objects alone, without pyplot's state: two figures, or two threads, never meet.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]

INK, FAINT = "#20242a", "#8a929c"
"""Of text and axes, and of the grid; in an SVG the page's own."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7a5cc4", "#6b7280")
"""Told apart by colour-blind people as well (Okabe and Ito 2008), but for the last two; in an SVG ``var(--line-N)``."""
DASHES = ("solid", "dashed", "dotted", "dashdot")

_LOOK: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it along
    "font.size": 9.0,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "slm",  # the same figure is the same file
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
RUN_GROUP = "run-"
"""What the group of a line is called ahead of its run's number."""
_RUN = re.compile(rf'<g id="[\w-]*?{RUN_GROUP}(\d+)">')
_DROPPED = re.compile(r"<metadata>.*?</metadata>|<style .*?</style>|<!--.*?-->", re.DOTALL)
_NAMES = re.compile(r'((?:\sid="|url\(#|href="#))')
_TAG = re.compile(r"<[^>]*>")
_DIGITS = re.compile(r"(\d+\.\d\d)\d+")
_LEAST, _MOST = 0.95, 1.45  # pixels a point: text is to be read, and of much the same size all over a page


@contextmanager
def look() -> Iterator[None]:
    """Whatever is drawn, or saved, in the block has our look."""
    from matplotlib import rc_context

    with rc_context(_LOOK):
        yield


def new_figure(width: float = 4.8, height: float = 3.0) -> Figure:
    """An empty figure, in inches, whose margins follow from what is written in them; to be made within `look`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def panel_of_many() -> tuple[Figure, Axes]:
    """A figure and its axes, of margins that are always the same: to measure text is half of the time of drawing."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.0))
    return figure, with_grid(figure.add_axes((0.1, 0.15, 0.885, 0.8)))


def with_grid(axes: Axes) -> Axes:
    """The same axes, with faint lines behind what is drawn."""
    axes.grid(color=FAINT, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def style_of(number: int) -> dict[str, Any]:
    """Colour and dashes of the line of run `number`: 32 of them differ."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
        "gid": f"{RUN_GROUP}{number}",
    }


def as_png(figure: Figure, dpi: int = 100) -> bytes:
    """The file's bytes; the same for the same figure."""
    out = io.BytesIO()
    with look():
        figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    return out.getvalue()


def as_svg(figure: Figure, name: str, description: str, titles: Mapping[int, str] | None = None) -> str:
    """An ``<svg>`` element to stand in a page: as wide as it may be, in the page's colours, with names that begin with
    `name`. The group of a run has ``data-run``, and its title where there is one; who cannot see the figure is
    told the `description`."""
    told = {number: f"<title>{escape(title)}</title>" for number, title in (titles or {}).items()}
    out = io.StringIO()
    with look():
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = _DROPPED.sub("", out.getvalue())
    text = _TAG.sub(lambda tag: _DIGITS.sub(r"\1", tag[0]), text[text.index("<svg") :])
    text = _NAMES.sub(rf"\1{name}-", text).replace(INK, "currentColor")
    text = _RUN.sub(lambda run: f'<g class="run" data-run="{run[1]}">{told.get(int(run[1]), "")}', text)
    for number, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--line-{number})")
    (view_box,) = re.findall(r'viewBox="[^"]*"', text[: text.index(">")])
    points = 72 * figure.get_figwidth()
    size = f'style="min-width: {points * _LEAST:.0f}px; max-width: {points * _MOST:.0f}px"'
    head = f'{view_box} {size} role="img" aria-label="{escape(description)}"'
    return f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {head}>{text[text.index(">") + 1 :].strip()}'
