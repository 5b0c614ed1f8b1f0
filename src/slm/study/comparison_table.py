"""A comparison in words: a table for a terminal, and the same as plain types for JSON."""

from __future__ import annotations

from typing import Any

from slm.errors import first_few
from slm.files.plain_json import without_nan
from slm.notices import in_columns
from slm.study.compare import Compared, Comparison, verdict_of_all
from slm.study.grouping import Group, Reading, in_units
from slm.study.importance import best_share, importance
from slm.study.statistics import Spread


def lines(comparison: Comparison) -> list[str]:
    """What was compared, a line a group, what can be said of the whole, what settings matter, what was left out."""
    table = in_columns([_header(comparison), *_rows(comparison)])
    cautions = [f"caution: {said}" for said in comparison.readings.cautions]
    said = [verdict_of_all(comparison), *_importance(comparison), *_left_out(comparison), *cautions]
    return [_head(comparison), "", *table, "", *said]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All of it; docs/json.md describes the fields."""
    readings = comparison.readings
    plain: dict[str, Any] = without_nan({
        "by": readings.by,
        "at": readings.at,
        "place": readings.place,
        "interpolated_runs": readings.n_interpolated,
        "level": comparison.level,
        "comparisons": comparison.n_comparisons,
        "reference": comparison.reference.name,
        "baseline_given": comparison.is_baseline,
        "verdict": verdict_of_all(comparison),
        "groups": [_group(group, own) for group, own in zip(comparison.groups, comparison.spreads, strict=True)],
        "compared": [_compared(one) for one in comparison.compared],
        "importance": importance(comparison.groups),
        "left_out": readings.left_out,
        "cautions": readings.cautions,
    })  # fmt: skip
    return plain


# ---- words ----


def _head(comparison: Comparison) -> str:
    readings = comparison.readings
    n_runs = sum(len(group.readings) for group in comparison.groups)
    n, place = readings.n_interpolated, in_units(readings.place, readings.at)
    between = f", {n} on a straight line between two validations" if n else ""
    return f"validation {readings.by} of {n_runs} runs of {len(comparison.groups)} settings at {place}{between}"


def _header(comparison: Comparison) -> tuple[str, ...]:
    level = f"{100 * comparison.level:g} %"
    p = f"p of {comparison.n_comparisons}" if comparison.n_comparisons > 1 else "p"
    return "setting", "seeds", comparison.readings.by, "sd", f"{level} interval", f"difference ({level})", p, "verdict"


def _rows(comparison: Comparison) -> list[tuple[str, ...]]:
    compared = {one.group.name: one for one in comparison.compared}
    rows: list[tuple[str, ...]] = []
    for group, own in zip(comparison.groups, comparison.spreads, strict=True):
        one = compared.get(group.name)
        rows.append((group.name, str(own.n), *_own(own), *_beside(one, comparison.is_baseline)))
    return rows


def _own(own: Spread) -> tuple[str, str, str]:
    if own.n == 1:
        return f"{own.mean:.4f}", "", ""
    return f"{own.mean:.4f}", f"{own.sd:.4f}", f"{own.low:.4f} to {own.high:.4f}"


def _beside(one: Compared | None, is_baseline: bool) -> tuple[str, str, str]:
    if one is None:
        return "", "", "the baseline" if is_baseline else "the lowest mean"
    if not one.found.is_known:
        return f"{one.found.mean:+.4f}", "", one.verdict
    reach = f" ± {(one.found.high - one.found.low) / 2:.4f} {_KINDS[one.found.kind]}"
    return f"{one.found.mean:+.4f}{reach}", f"{one.p_holm:.2g}", one.verdict


_KINDS = {"paired": "paired", "welch": "Welch"}


def _importance(comparison: Comparison) -> list[str]:
    shares = importance(comparison.groups)
    if not shares:
        return []
    told = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
    best = best_share(len(comparison.groups))
    return [f"what the best {best:.0%} of settings hang on (PED-ANOVA): {told}"]


def _left_out(comparison: Comparison) -> list[str]:
    left_out = [f"{run} ({why})" for run, why in comparison.readings.left_out.items()]
    return [f"left out: {first_few(left_out, '; ')}"] if left_out else []


# ---- plain types ----


def _group(group: Group, own: Spread) -> dict[str, Any]:
    return {
        "name": group.name,
        "settings": group.settings,
        "n": own.n,
        "mean": own.mean,
        "sd": own.sd,
        "interval": [own.low, own.high],
        "runs": [_reading(reading) for reading in group.readings],
    }


def _reading(reading: Reading) -> dict[str, Any]:
    run = reading.run
    return {"run": str(run.folder), "seed": run.seed, "value": reading.value, "between": reading.between}


def _compared(one: Compared) -> dict[str, Any]:
    found = one.found
    return {
        "group": one.group.name,
        "reference": one.reference.name,
        "test": found.kind,
        "n": list(found.n),
        "difference": found.mean,
        "interval": [found.low, found.high],
        "p": found.p,
        "p_holm": one.p_holm,
        "is_shown": one.is_shown,
        "can_show": one.can_show,
        "seeds_needed": one.seeds_needed,
        "verdict": one.verdict,
    }
