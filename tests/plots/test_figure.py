"""Figures: small, the same each time, and in a page without a name or an address of their own."""

from __future__ import annotations

import math
import re
import subprocess
import sys

from slm.plots.curves import Line, many_curves, run_curve
from slm.plots.figure import COLOURS, as_png, as_svg, style_of
from slm.plots.parallel import Axis, parallel_coordinates
from slm.plots.thinning import thinned

FALLING = [(float(step), 4 / (1 + step / 50)) for step in range(0, 2000, 10)]


def lines(count: int = 3) -> list[Line]:
    return [Line(number, [(x, y + number) for x, y in FALLING]) for number in range(count)]


def test_a_runs_curve_is_small_and_the_same_each_time() -> None:
    """Below 60 kB; a date or a random name in the file would make two runs that are equal differ."""
    first, second = (as_png(run_curve(FALLING, FALLING[::20], FALLING)) for _ in range(2))
    assert first.startswith(b"\x89PNG")
    assert 5_000 < len(first) < 60_000
    assert first == second


def test_a_run_without_a_validation_or_with_one_row() -> None:
    for training in ([], [(1.0, 3.0)], [(1.0, math.nan), (2.0, 3.0)]):
        assert as_png(run_curve(training, [], [])).startswith(b"\x89PNG")


def test_two_svgs_in_one_page_share_no_name() -> None:
    """matplotlib calls the parts of every figure the same, and refers to them by these names."""
    texts = [as_svg(many_curves(lines(), "step"), name, "a & b") for name in ("one", "two")]
    names = [set(re.findall(r'\sid="([^"]*)"', text)) for text in texts]
    assert names[0]
    assert not names[0] & names[1]
    for text, known in zip(texts, names, strict=True):
        referred = set(re.findall(r'(?:url\(#|href="#)([^")]*)', text))
        assert referred
        assert referred <= known
        assert 'aria-label="a &amp; b"' in text


def test_an_svg_takes_the_pages_colours_and_asks_nobody() -> None:
    text = as_svg(many_curves(lines(), "step"), "plot", "loss over steps")
    assert re.findall(r'data-run="(\d+)"', text) == ["0", "1", "2"]
    assert all(f"var(--line-{number})" in text for number in range(3))
    assert "currentColor" in text
    assert not [colour for colour in COLOURS if colour in text]
    assert not re.search(r'(?:src|href)="(?!#)|<style|<metadata|@import', text)
    assert ">step</text>" in text, "text is text, not outlines"


def test_many_lines_of_many_points_stay_small() -> None:
    long = [Line(number, [(float(x), math.sin(x * (1 + number))) for x in range(20_000)]) for number in range(24)]
    assert len(as_svg(many_curves(long, "step"), "plot", "")) < 150_000


def test_styles_of_32_runs_differ() -> None:
    styles = {(style["color"], style["linestyle"]) for style in map(style_of, range(32))}
    assert len(styles) == 32


def test_thinning_keeps_both_ends_and_every_spike() -> None:
    points = [(float(x), 1.0) for x in range(10_000)]
    points[4321] = (4321.0, 50.0)
    points[777] = (777.0, -50.0)
    kept = thinned(points, 100)
    assert len(kept) <= 100
    assert kept == sorted(kept)
    assert {points[0], points[-1], points[4321], points[777]} <= set(kept)
    assert thinned(points[:100], 100) == points[:100]


def test_parallel_coordinates_of_numbers_and_names() -> None:
    """A setting of one value, names with what matplotlib would take for mathematics."""
    axes = [
        Axis("optimizer.lr", [1e-4, 1e-3, 1e-2]),
        Axis("data.path", ["a$b$", "<c>", "a$b$"]),
        Axis("trainer.compile", [True, True, True]),
        Axis("loss", [2.5, 2.0, 2.25]),
    ]
    text = as_svg(parallel_coordinates(axes, [0, 4, 7]), "parallel", "settings and loss", {4: "<best>"})
    assert "a$b$" in text
    assert "&lt;c&gt;" in text
    assert re.findall(r'data-run="(\d+)"', text) == ["0", "7", "4"], "the best is drawn last"
    assert 'data-run="4"><title>&lt;best&gt;</title>' in text


def test_plots_need_neither_torch_nor_pyplot() -> None:
    """pyplot holds on to every figure, and asks for a display."""
    code = (
        "import sys\nfrom slm.plots.curves import run_curve\nfrom slm.plots.figure import as_png\n"
        "as_png(run_curve([(1, 2)], [], []))\nassert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
