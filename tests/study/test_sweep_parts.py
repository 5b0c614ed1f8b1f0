"""Parts of a sweep by themselves: names, what varies, rules that stop, the table that is drawn."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from slm.study.sweep.curves import curve_at
from slm.study.sweep.halving import RUNGS, going_on, pauses, seconds_of_a_run
from slm.study.sweep.names import folder_name
from slm.study.sweep.pruning import is_pruned
from slm.study.sweep.settings import Setting
from slm.study.sweep.space import Choice, Interval, Space, space_of
from slm.study.sweep.told import drawn
from slm.study.sweep.trials import Outcome, Report, Trial


def test_a_folder_is_named_by_what_varies() -> None:
    assert folder_name({"optimizer.lr": "0.001", "seed": "2"}) == "lr=0.001,seed=2"
    assert folder_name({}) == "run"
    assert folder_name({"a.lr": "1", "b.lr": "2", "+c.d": "3"}) == "a.lr=1,b.lr=2,d=3"
    unsafe = [folder_name({"data.path": path}) for path in ("a/b.txt", "a_b.txt", "../../x", "a" * 400, "a" * 401)]
    assert len(set(unsafe)) == 5
    assert all(len(name) <= 120 and "/" not in name for name in unsafe)
    assert unsafe[1] == "path=a_b.txt"


def test_a_space_is_read_as_it_was_written() -> None:
    space = Space((Choice("a", ("1", "2")), Interval("b", 1e-4, 1e-2, is_log=True)), ("1", "2"))
    assert space_of(space.as_json()) == space
    assert space.keys == ["a", "b", "seed"]
    grid = Space((Choice("a", ("1", "2")), Choice("b", ("x", "y", "z"))))
    assert [list(point.values()) for point in grid.grid()] == [[a, b] for a in "12" for b in "xyz"]
    assert (grid.size, space.size) == (6, float("inf"))
    assert Interval("b", 0.1, 1.0).typed(0.1234567891) == "0.123457"
    assert Interval("b", 0.1234561, 1.0).typed(0.1234561) == "0.1234561"  # never below what is allowed


# ---- rules that stop ----


def curve(limit: float, steps: int = 100, every: int = 10, seconds_a_step: float = 1.0) -> tuple[Report, ...]:
    """A loss that falls towards `limit`."""
    places = range(every, steps + 1, every)
    return tuple(Report(step, steps, step * seconds_a_step, limit + 10 / step) for step in places)


def setting(index: int, reports: Sequence[tuple[Report, ...]], state: str = "running") -> Setting:
    trials = []
    for seed, told in enumerate(reports):
        outcome = (
            Outcome("done", {"best_val_loss": min(r.loss for r in told), "step": 100}) if state == "done" else None
        )
        trial = Trial(index * 10 + seed, index, {"a": str(index)}, str(seed), f"a={index}", "running")
        trials.append(replace(trial, state=state, reports=told, outcome=outcome, place=index))  # type: ignore[arg-type]
    return Setting(index, {"a": str(index)}, tuple(trials))


@pytest.mark.parametrize("rule", ["median", "wilcoxon"])
def test_a_worse_setting_is_stopped_and_a_better_one_is_not(rule: str) -> None:
    """At the same step, by the same seeds; at the end never."""
    others = [setting(index, [curve(3 + index / 10), curve(3 + index / 10)], "done") for index in range(6)]
    for limit, stopped in ((5.0, True), (2.0, False)):
        mine = setting(9, [curve(limit)[:5]])
        now = mine.trials[0].reports[-1]
        assert is_pruned(rule, "step", mine, others, now) is stopped  # type: ignore[arg-type]
    last = setting(9, [curve(5.0)])
    assert not is_pruned(rule, "step", last, others, last.trials[0].reports[-1])  # type: ignore[arg-type]
    assert not is_pruned(rule, "step", last, others[:0], last.trials[0].reports[4])  # type: ignore[arg-type]


def test_at_equal_times_a_slow_setting_is_compared_with_what_others_had_by_then() -> None:
    """A wide model with the better loss a step, ten times as slow, is worse in the same time."""
    others = [setting(index, [curve(3.0)], "done") for index in range(6)]
    wide = setting(9, [curve(2.9, seconds_a_step=10.0)[:3]])
    now = wide.trials[0].reports[-1]
    assert not is_pruned("median", "step", wide, others, now)
    others = [setting(index, [curve(3.0, steps=1000)], "done") for index in range(6)]
    assert is_pruned("median", "time", wide, others, now)
    assert curve_at(curve(3.0), 15.0, "time") == pytest.approx((curve(3.0)[0].loss + curve(3.0)[1].loss) / 2)


def test_halving_takes_the_best_of_all_that_came_to_a_rung() -> None:
    """Whoever came first; a setting whose seeds are not all there is not judged, one that failed not waited for."""
    share, keep = RUNGS[0]
    draw = random.Random(1)
    losses = [3 + index / 10 for index in range(12)]
    draw.shuffle(losses)
    settings = []
    for index, loss in enumerate(losses):
        found = setting(index, [curve(loss)[:1], curve(loss)[:1]], "paused")
        paused = tuple(replace(trial, rung_losses=(loss,)) for trial in found.trials)
        settings.append(replace(found, trials=paused))
    assert pauses(replace(settings[0].trials[0], rung_losses=()), Report(20, 100, 1, 3), "step", None)
    assert not pauses(
        replace(settings[0].trials[0], rung_losses=()), Report(int(share * 100) - 1, 100, 1, 3), "step", None
    )
    assert not pauses(replace(settings[0].trials[0], rung_losses=()), Report(20, 100, 1, 3), "time", None)
    chosen = {trial.setting for trial in going_on(settings)}
    best = sorted(range(12), key=lambda index: losses[index])
    assert chosen == set(best[: int(12 * keep)])
    waits = replace(settings[best[0]].trials[1], state="waiting", rung_losses=())
    settings[best[0]] = replace(settings[best[0]], trials=(settings[best[0]].trials[0], waits))
    assert best[0] not in {trial.setting for trial in going_on(settings)}
    failed = replace(waits, state="failed")
    settings[best[0]] = replace(settings[best[0]], trials=(settings[best[0]].trials[0], failed))
    assert best[0] in {trial.setting for trial in going_on(settings)}
    assert seconds_of_a_run([trial for one in settings for trial in one.trials]) == 100.0


def test_the_table_shows_what_runs_and_what_is_best(tmp_path: Path) -> None:
    done, running = setting(0, [curve(3.0)], "done").trials[0], setting(1, [curve(4.0)[:2]]).trials[0]
    failed = replace(running, number=7, state="failed", folder="a=[red]", outcome=Outcome("failed", error="no [bold]"))
    out = io.StringIO()
    Console(file=out, width=120).print(drawn([done, running, failed], {running.number: 0.0}, Path("outputs/sweep")))
    text = out.getvalue()
    assert "outputs/sweep: 3 trials, 1 done, 1 failed, 1 running" in text
    assert "100 of 100" in text
    assert "20 of 100" in text
    assert "failed: no [bold]" in text
