"""Our few lines of statistics against published examples, scipy's tests, and chance itself."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from scipy import stats

from slm.study.statistics import Difference, can_show, holm, paired, seeds_for, spread, welch

Test = Callable[[Sequence[float], Sequence[float]], Difference]

# Student 1908 (Cushny and Peebles 1905): hours of sleep gained with two drugs, the same ten patients
SLEEP = (
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
# Box, Hunter, Hunter 1978, "Statistics for Experimenters", 4.2: wear of two materials on the shoes of ten boys
SHOES = (
    [13.2, 8.2, 10.9, 14.3, 10.7, 6.6, 9.5, 10.8, 8.8, 13.3],
    [14.0, 8.8, 11.2, 14.2, 11.8, 6.4, 9.8, 11.3, 9.3, 13.6],
)
# Darwin 1876, in Fisher 1935, "The Design of Experiments", 17: fifteen pairs of maize, crossed less self-fertilised
# plants, in eighths of an inch
MAIZE = ([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], [0] * 15)
# Henderson, Velleman 1981 (R's mtcars): miles per gallon of cars with automatic and manual transmission
CARS = (
    [21.4, 18.7, 18.1, 14.3, 24.4, 22.8, 19.2, 17.8, 16.4, 17.3, 15.2, 10.4, 10.4, 14.7, 21.5, 15.5, 15.2, 13.3, 19.2],
    [21.0, 21.0, 22.8, 32.4, 30.4, 33.9, 27.3, 26.0, 30.4, 15.8, 19.7, 15.0, 21.4],
)
# Dobson 1983 (R's PlantGrowth): dried weight of plants of a control and two treatments
PLANTS = (
    [4.17, 5.58, 5.18, 6.11, 4.50, 4.61, 5.17, 4.53, 5.33, 5.14],
    [4.81, 4.17, 4.41, 3.59, 5.87, 3.83, 6.03, 4.89, 4.32, 4.69],
    [6.31, 5.12, 5.54, 5.50, 5.37, 5.29, 4.92, 6.15, 5.80, 5.26],
)


@pytest.mark.parametrize(
    ("test", "data", "p", "interval"),
    [
        (paired, SLEEP, 0.002833, (-2.4598858, -0.7001142)),
        (welch, SLEEP, 0.07939, (-3.3654832, 0.2054832)),
        (paired, SHOES, 0.008539, (-0.6869539, -0.1330461)),
        (paired, MAIZE, 0.0497, (0.0311932, 41.8354733)),
        (welch, CARS, 0.001374, (-11.280194, -3.209684)),
        (welch, PLANTS[1:], 0.009298, (-1.4809144, -0.2490856)),
    ],
)
def test_published_examples(test: Test, data: Any, p: float, interval: tuple[float, float]) -> None:
    """As R's documentation and the books print them, and as scipy has them."""
    found = test(*data)
    theirs = stats.ttest_rel(*data) if test is paired else stats.ttest_ind(*data, equal_var=False)
    low, high = theirs.confidence_interval()
    assert (found.p, found.low, found.high) == pytest.approx((theirs.pvalue, low, high), rel=1e-9)
    assert found.p == pytest.approx(p, rel=1e-3)
    assert (found.low, found.high) == pytest.approx(interval, abs=1e-6)


def test_the_mean_of_one_group() -> None:
    own = spread(SLEEP[0], 0.99)
    theirs = stats.ttest_1samp(SLEEP[0], 0).confidence_interval(0.99)
    assert (own.low, own.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    assert own.sd == pytest.approx(1.78901, abs=1e-5)


def test_several_comparisons() -> None:
    """Wright 1992, "Adjusted p-values for simultaneous inference", table 2 has the form; the values are those of R's
    ``p.adjust(method="holm")`` and of statsmodels' ``multipletests``."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6, 0.001]) == pytest.approx([1.0, 1.0, 0.003])
    assert holm([0.02, math.nan, 0.03])[::2] == pytest.approx([0.04, 0.04])
    assert holm([]) == []


@pytest.mark.parametrize(("kind", "size", "n"), [("welch", 0.8, 26), ("welch", 0.5, 64), ("paired", 0.5, 34)])
def test_seeds_that_show_a_difference(kind: Any, size: float, n: int) -> None:
    """Cohen 1992, "A power primer", table 2: 26 a group for a large effect, 64 for a medium one, at 0.05 and a power of
    0.8; 34 pairs by G*Power's manual (Faul et al. 2007) and statsmodels' ``TTestPower`` (33.37)."""
    found = Difference(kind, 0.1, (1.0, 1.0), (3, 3), -1.0, 1.0, 0.5)
    assert seeds_for(found, size) == n
    assert can_show(found, n=(n, n)) <= size < can_show(found, n=(n - 1, n - 1))
    assert seeds_for(found, 0.1) is None


@pytest.mark.parametrize("n", [(2, 2), (3, 3), (3, 5), (10, 4)])
def test_what_can_be_shown_is_what_the_noncentral_t_says(n: tuple[int, int]) -> None:
    found = welch([0.0, 1.0, 3.0], [2.0, 2.5, 2.6])
    size = can_show(found, 0.01, n)
    parts = [sd**2 / count for sd, count in zip(found.sd, n, strict=True)]
    df = sum(parts) ** 2 / sum(part**2 / (count - 1) for part, count in zip(parts, n, strict=True))
    critical = stats.t.isf(0.005, df)
    assert stats.nct.sf(critical, df, size / math.sqrt(sum(parts))) == pytest.approx(0.8, abs=1e-5)


def test_values_that_do_not_spread() -> None:
    """Equal to the last bit, or apart for certain; and a single one says nothing."""
    assert (paired([1.1, 1.2], [1.1, 1.2]).p, welch([0.1] * 3, [0.1] * 3).p) == (1.0, 1.0)
    apart = paired([2.0, 3.0], [1.0, 2.0])
    assert (apart.p, apart.low, apart.high, can_show(apart)) == (0.0, 1.0, 1.0, 0.0)
    for alone in (welch([1.0], [2.0, 3.0]), paired([1.0], [2.0])):
        assert not alone.is_known
        assert math.isnan(can_show(alone))
        assert seeds_for(alone, 1.0) is None
    assert math.isnan(spread([1.0]).low)


def test_values_that_are_almost_equal_stay_exact() -> None:
    """0.1 three times has the mean 0.1, not 0.10000000000000002 and a spread of 1e-17."""
    assert spread([0.1, 0.1, 0.1]).sd == 0.0


@pytest.mark.parametrize(
    ("test", "n", "other_sd"),
    [(paired, (3, 3), 1.0), (paired, (5, 5), 1.0), (welch, (5, 5), 1.0), (welch, (8, 5), 3.0)],
)
def test_intervals_cover_the_truth(test: Test, n: tuple[int, int], other_sd: float) -> None:
    """94 to 96 of 100, of 2,000 simulated comparisons (Welch's are wider with fewer than five values a group: of three
    and three 97 of 100)."""
    draw, covered, told = random.Random(f"{test.__name__} {n}"), 0, 0
    for _ in range(2000):
        seeds = [draw.gauss(0, 1.0 if test is paired else 0.0) for _ in range(max(n))]
        first = [3.0 + seeds[place] + draw.gauss(0, 0.5) for place in range(n[0])]
        second = [3.0 + seeds[place] + draw.gauss(0, 0.5 * other_sd) for place in range(n[1])]
        found = test(first, [value - 0.2 for value in second])
        covered += found.low <= 0.2 <= found.high
        told += test(first, second).p < 0.05
    assert 0.94 <= covered / 2000 <= 0.96
    assert 1 - told / 2000 >= 0.94
