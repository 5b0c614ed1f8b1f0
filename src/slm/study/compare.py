"""Which of several settings is better, and whether that can be told: groups of runs compared two by two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from slm.errors import UserError, suggestion
from slm.study.grouping import Group, Readings
from slm.study.statistics import Difference, Spread, can_show, holm, paired, seeds_for, spread, welch
from slm.suggest.nearest import ranked

_FEWEST_PAIRS = 2


@dataclass(frozen=True)
class Compared:
    """One group beside the one that the others are held against."""

    group: Group
    reference: Group
    found: Difference  # of the group's mean and the reference's
    p_holm: float  # adjusted for all comparisons that were made, or could as well have been; nan where p is
    is_shown: bool  # that they differ
    can_show: float  # the smallest true difference that these seeds show four times in five, at this spread
    seeds_needed: int | None  # a group, to show a difference as large as the one found; None: none is known, over 100
    alpha: float  # that a single comparison is held to, to be right of all of them

    @property
    def verdict(self) -> str:
        return _verdict(self)


@dataclass(frozen=True)
class Comparison:
    """All groups, the lowest mean first, held against one of them."""

    readings: Readings
    level: float
    spreads: list[Spread]  # in the order of the groups
    reference: Group
    is_baseline: bool  # the reference was named; else it is the best, which its luck may have made
    n_comparisons: int  # that the p are adjusted for
    compared: list[Compared]  # the other groups, in their order

    @property
    def groups(self) -> list[Group]:
        return self.readings.groups


def compare(readings: Readings, level: float = 0.95, baseline: str | None = None) -> Comparison:
    """Hold each group against the `baseline`, a group's name, or the best one.

    Two groups are paired where the seeds of the one with fewer are all the other's too. Who picks the best of k groups
    to hold the others against has looked at all k (k - 1) / 2 differences, and that is what p is adjusted for (Holm).
    `UserError`: there is no such group.
    """
    groups = readings.groups
    reference = groups[0] if baseline is None else _named(baseline, groups)
    others = [group for group in groups if group is not reference]
    pairs = [(group, reference) for group in others]
    if baseline is None:
        pairs += list(combinations(others, 2))
    found = [difference(*pair, level) for pair in pairs]
    adjusted = holm([one.p for one in found])
    n = sum(one.is_known for one in found)
    alpha = (1 - level) / max(n, 1)
    compared = [
        _compared(group, reference, one, p, alpha, 1 - level)
        for group, one, p in zip(others, found, adjusted, strict=False)
    ]
    spreads = [spread(group.values, level) for group in groups]
    return Comparison(readings, level, spreads, reference, baseline is not None, n, compared)


def _compared(
    group: Group, reference: Group, found: Difference, p: float, alpha: float, alpha_of_all: float
) -> Compared:
    needed = seeds_for(found, abs(found.mean), alpha)
    return Compared(group, reference, found, p, p <= alpha_of_all, can_show(found, alpha), needed, alpha)


def difference(first: Group, second: Group, level: float = 0.95) -> Difference:
    """Of two groups' losses, paired where their seeds are."""
    one, other = first.by_seed, second.by_seed
    shared = [seed for seed in one if seed in other and seed is not None]
    if len(shared) >= _FEWEST_PAIRS and len(shared) == min(len(one), len(other)):
        return paired([one[seed] for seed in shared], [other[seed] for seed in shared], level)
    return welch(first.values, second.values, level)


def verdict_of_all(comparison: Comparison) -> str:
    """What can be said of the whole, in a sentence."""
    reference, compared = comparison.reference, comparison.compared
    if not compared:
        return "one setting: nothing to compare it with; its seeds spread as shown"
    told = [one for one in compared if one.found.is_known]
    if not told:
        return "one seed a setting says nothing of chance: run each again with other seeds (seed=1,2,3)"
    shown = [one for one in told if one.is_shown]
    better = [one.group.name for one in shown if one.found.mean < 0]
    worse = len(shown) - len(better)
    if comparison.is_baseline:
        said = f"shown to be better than {reference.name}: {', '.join(better) or 'none'}"
        return f"{said}; to be worse: {worse}; not told from it: {len(compared) - len(shown)}"
    if worse == len(compared):
        others = f"all {len(compared)} others" if len(compared) > 1 else "the other"
        return f"{reference.name} is the best, and that is shown against {others}"
    if not shown:
        return f"no difference shown: {reference.name} has the lowest mean, which may be luck"
    return (
        f"{reference.name} has the lowest mean; {worse} of {len(compared)} others are shown to be worse, "
        f"{len(compared) - worse} may be as good"
    )


def _verdict(one: Compared) -> str:
    found = one.found
    if not found.is_known:
        return "not told: one seed"
    if one.is_shown:
        return f"{'worse' if found.mean > 0 else 'better'} by {_figure(abs(found.mean))}"
    n = min(found.n)
    said = f"no difference shown: {n} {'seeds' if n > 1 else 'seed'} can show {_figure(one.can_show)} at this spread"
    if one.seeds_needed is not None:
        return f"{said}; {one.seeds_needed} would show {_figure(abs(found.mean))}"
    half = one.can_show / 2
    more = seeds_for(found, half, one.alpha)
    return said if more is None else f"{said}; {more} would show {_figure(half)}"


def _figure(value: float) -> str:
    """Two digits that count."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, 1 - math.floor(math.log10(abs(value))))}f}"


def _named(name: str, groups: Sequence[Group]) -> Group:
    found = [group for group in groups if group.name == name or set(name.split()) <= set(group.name.split())]
    if len(found) == 1:
        return found[0]
    names = [group.name for group in groups]
    if found:
        raise UserError(f"baseline={name} is {len(found)} settings ({', '.join(g.name for g in found)}); name one")
    raise UserError(f"baseline={name} is no setting of these{suggestion(ranked(name, names)[:1])} ({', '.join(names)})")
