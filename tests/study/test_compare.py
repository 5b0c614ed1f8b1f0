"""slm-compare: what differs, and whether that can be told."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from documented_json import differences
from made_runs import TOKENS_A_STEP, make_run

from slm.errors import UserError
from slm.study.compare import compare, difference
from slm.study.grouping import Group, Reading, Readings, read_at
from slm.study.importance import importance
from slm.study.run_record import RunRecord, runs_below


def group(name: str, losses: dict[int, float], **settings: Any) -> Group:
    def run(seed: int) -> RunRecord:
        return RunRecord(Path(name) / str(seed), frozenset(), {"overrides": [f"seed={seed}"]}, {})

    return Group(name, settings or {"k": name}, [Reading(run(seed), loss, None) for seed, loss in losses.items()])


def readings(*groups: Group) -> Readings:
    return Readings("steps", 100, sorted(groups, key=lambda one: sum(one.values) / len(one.values)), {})


def make(folder: Path, name: str, *typed: str, end: float = 2.0, upto: int = 100, **made: Any) -> Path:
    """Validated every 10 steps, on a curve that ends at `end` at step 100."""
    return make_run(folder / name, typed, {step: end + (100 - step) / 50 for step in range(10, upto + 1, 10)}, **made)


# ---- groups ----


def test_runs_that_differ_in_their_seed_are_repeats(tmp_path: Path) -> None:
    for place, (lr, seed) in enumerate([(1, 1), (1, 2), (2, 1), (2, 2), (2, 2)]):
        make(tmp_path, str(place), f"optimizer.lr={lr}", f"seed={seed}", end=2.0 + lr + place / 100)
    one, two = read_at(runs_below(tmp_path), "steps").groups
    assert (one.name, one.settings, one.by_seed) == ("lr=1", {"optimizer.lr": 1}, {1: 3.0, 2: 3.01})
    assert two.by_seed == pytest.approx({1: 4.02, 2: 4.035})  # of a seed that was run twice the mean


def test_pairs_are_of_the_same_seeds() -> None:
    whole, other = {1: 1.0, 2: 2.0, 3: 3.5}, {3: 3.0, 1: 0.5, 2: 1.6}
    assert difference(group("a", whole), group("b", other)).kind == "paired"
    assert difference(group("a", whole), group("b", {1: 0.5, 2: 1.6})).n == (2, 2)
    assert difference(group("a", whole), group("b", {1: 0.5, 4: 1.6})).kind == "welch"
    assert not difference(group("a", whole), group("b", {1: 0.5})).is_known


# ---- at equal cost ----


def test_read_where_all_have_come_to(tmp_path: Path) -> None:
    """One of fewer steps, one killed early, one never validated."""
    make(tmp_path, "whole", "optimizer.lr=1", end=2.0)
    make(tmp_path, "half", "optimizer.lr=2", "trainer.max_steps=60", end=3.0, upto=60)
    early = make(tmp_path, "early", "optimizer.lr=3", upto=30, end=1.0)
    (early / ".lock").touch()
    make_run(tmp_path / "never", ["optimizer.lr=4"], {})
    found = read_at(runs_below(tmp_path), "steps")
    assert (found.place, found.n_interpolated) == (60, 0)
    values = {one.settings["optimizer.lr"]: one.values for one in found.groups}
    assert values == {1: [pytest.approx(2.8)], 2: [pytest.approx(3.8)]}
    assert {Path(run).name: why for run, why in found.left_out.items()} == {
        "early": "killed, validated to step 30 alone",
        "never": "stopped, no validation",
    }
    assert read_at(runs_below(tmp_path), "tokens").place == 60 * TOKENS_A_STEP
    assert read_at(runs_below(tmp_path), "flops").place == 60 * TOKENS_A_STEP * 6e6
    between = read_at(runs_below(tmp_path), "steps", 25)
    assert between.n_interpolated == 3
    assert between.groups[0].readings[0].between == (20, 30)
    assert between.groups[0].values == [pytest.approx(1.0 + 75 / 50)]
    with pytest.raises(UserError, match=r"of 4 runs 1 is left at step 90 \(until=… reads elsewhere\): .*half: done"):
        read_at(runs_below(tmp_path), "steps", 90)


def test_at_equal_time_the_slower_has_made_fewer_steps(tmp_path: Path) -> None:
    make(tmp_path, "fast", "optimizer.lr=1")
    slow = make(tmp_path, "slow", "optimizer.lr=2")
    table = (slow / "metrics.csv").read_text()
    (slow / "metrics.csv").write_text(table.replace(",20.0,", ",50.0,"))
    found = read_at(runs_below(tmp_path), "time")
    assert found.place == pytest.approx(100 * 0.02)
    losses = {one.settings["optimizer.lr"]: one.values[0] for one in found.groups}
    assert losses == {1: pytest.approx(2.0), 2: pytest.approx(2.0 + 60 / 50)}


def test_other_tokenizers_are_compared_by_bytes_and_other_data_is_told(tmp_path: Path) -> None:
    for name in ("byte", "bpe"):
        make(tmp_path, name, f"tokenizer.kind={name}")
        table = (tmp_path / name / "metrics.csv").read_text().replace("val/loss", "val/bits_per_byte")
        make(tmp_path, f"{name}_bits", f"tokenizer.kind={name}")
        (tmp_path / f"{name}_bits/metrics.csv").write_text(table)
    (said,) = read_at(runs_below(tmp_path), "steps").cautions
    assert said.startswith("the tokenizers differ, and loss is of their tokens: by=bits_per_byte")
    found = read_at(runs_below(tmp_path), "steps", by="bits_per_byte")
    assert ([len(one.readings) for one in found.groups], found.cautions) == ([1, 1], [])
    for place, name in enumerate(("a", "b")):
        run = make(tmp_path / "data", name, f"seed={place}")
        record = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**record, "data_fingerprint": name}))
    (said,) = read_at(runs_below(tmp_path / "data"), "steps").cautions
    assert "2 different data sets" in said


# ---- verdicts ----


def test_a_difference_that_is_there_is_shown() -> None:
    found = compare(readings(group("a", {1: 2.0, 2: 2.1, 3: 2.2}), group("b", {1: 2.5, 2: 2.61, 3: 2.69})))
    (one,) = found.compared
    assert (found.reference.name, one.is_shown, one.verdict) == ("a", True, "worse by 0.50")


def test_what_the_seeds_can_show_is_said() -> None:
    found = compare(readings(group("a", {1: 2.0, 2: 2.1, 3: 2.2}), group("b", {1: 2.08, 2: 2.08, 3: 2.23})))
    (one,) = found.compared
    assert one.verdict == "no difference shown: 3 seeds can show 0.16 at this spread; 24 would show 0.030"
    equal = compare(readings(group("a", {1: 2.0, 2: 2.1, 3: 2.2}), group("b", {1: 2.001, 2: 2.05, 3: 2.249})))
    assert equal.compared[0].verdict == "no difference shown: 3 seeds can show 0.16 at this spread; 6 would show 0.081"
    alone = compare(readings(group("a", {1: 2.0}), group("b", {1: 2.1})))
    assert (alone.compared[0].verdict, alone.n_comparisons) == ("not told: one seed", 0)


def test_the_best_of_many_is_held_to_more() -> None:
    """Who picks the best has looked at all pairs; a baseline named ahead is held against each other group alone."""
    draw = random.Random(0)
    groups = [group(f"k={k}", {seed: 2 + draw.gauss(0, 1) for seed in (1, 2, 3)}) for k in range(5)]
    assert compare(readings(*groups)).n_comparisons == 10
    named = compare(readings(*groups), baseline="k=3")
    assert (named.n_comparisons, named.reference.name) == (4, "k=3")
    assert all(a.p_holm >= a.found.p for a in named.compared)
    with pytest.raises(UserError, match="baseline=k=7 is no setting of these"):
        compare(readings(*groups), baseline="k=7")


@pytest.mark.parametrize(("n_groups", "n_times"), [(2, 2000), (4, 500)])
def test_equal_settings_are_told_to_be_equal(n_groups: int, n_times: int) -> None:
    """In at least 94 of 100 studies nothing at all is shown, though each picks its best first."""
    draw, none_shown = random.Random(n_groups), 0
    for _ in range(n_times):
        luck = {seed: draw.gauss(0, 0.02) for seed in (1, 2, 3)}
        groups = [
            group(f"k={k}", {seed: 2 + luck[seed] + draw.gauss(0, 0.01) for seed in luck}) for k in range(n_groups)
        ]
        none_shown += not any(one.is_shown for one in compare(readings(*groups)).compared)
    assert none_shown / n_times >= 0.94


# ---- importance ----


def test_the_setting_that_matters_is_found() -> None:
    """A rate over two decades that the loss hangs on, a width that it hardly does; and with few settings nothing."""
    grid = [
        group(f"{rate} {dim}", {1: 2 + math.log10(rate / 1e-3) ** 2 + 0.01 * (dim == 64)}, rate=rate, dim=dim, kind="a")
        for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
        for dim in (64, 128)
    ]
    shares = importance(grid)
    assert set(shares) == {"rate", "dim"}
    assert shares["rate"] > 0.8
    assert importance(grid[:7]) == {}


# ---- the command ----


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for lr, end in ((0.001, 2.0), (0.003, 1.5)):
        for seed in (1, 2, 3):
            make(
                tmp_path / "study",
                f"{lr}_{seed}",
                f"optimizer.lr={lr}",
                f"seed={seed}",
                end=end + seed / 100 * lr * 1e3,
            )
    return tmp_path / "study"


def test_as_a_table(study: Path, run_cli: Any) -> None:
    outcome = run_cli("compare", "study=study", "plot=plots/a.png")
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == "validation loss of 6 runs of 2 settings at step 100"
    assert " ".join(lines[2].split()) == "setting seeds loss sd 95 % interval difference (95 %) p verdict"
    assert lines[3].split()[:4] == ["lr=0.003", "3", "1.5600", "0.0300"]
    assert lines[4].split()[:4] == ["lr=0.001", "3", "2.0200", "0.0100"]
    assert "+0.4600 ± 0.0497 paired" in lines[4]
    assert lines[4].endswith("worse by 0.46")
    assert lines[-1] == "lr=0.003 is the best, and that is shown against the other"
    assert (study.parent / "plots/a.png").read_bytes().startswith(b"\x89PNG")


def test_as_json(study: Path, run_cli: Any) -> None:
    outcome = run_cli(
        "compare", "study/0.001_1", "study/0.001_2", "study/0.003_1", "json=true", "plot=a.svg", "at=time"
    )
    assert (outcome.status, differences("slm-compare", outcome.out)) == (0, []), outcome.err
    said = json.loads(outcome.out)
    assert (said["at"], said["place"], said["reference"]) == ("time", pytest.approx(2.0), "lr=0.003")
    assert [(one["name"], one["n"], one["interval"][0] is None) for one in said["groups"]] == [
        ("lr=0.003", 1, True),
        ("lr=0.001", 2, False),
    ]
    assert said["compared"][0]["p"] is None
    assert "<svg" in (study.parent / "a.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to compare: name run folders or folders of runs, or study=PATH"),
        (["study", "study=study"], "runs and study are both given"),
        (["study", "at=epochs"], "at should be 'steps', 'tokens', 'time' or 'flops'; got 'epochs'"),
        (["study", "plot=a.pdf"], "plot: 'a.pdf' ends in none of .png, .svg"),
        (["study", "until=5"], "at least two runs with a validation are compared; of 6 runs 0 are left at step 5"),
        (["study", "baseline=lr=0.002"], "baseline=lr=0.002 is no setting of these; did you mean 'lr=0.003'?"),
        (["study", "level=95"], "level"),
        (["study", "where=optimizer.rate=1"], "where: no run has 'optimizer.rate'"),
        (["nowhere"], "'nowhere' is no folder"),
    ],
)
def test_mistakes(study: Path, run_cli: Any, arguments: list[str], said: str) -> None:
    outcome = run_cli("compare", *arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith(f"slm-compare: {said}")
