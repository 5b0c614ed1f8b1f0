"""A run that becomes longer: what its schedule does is told, or asked for; it goes on as if it had always been so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from slm.errors import UserError
from slm.schema import checked
from slm.training.config import SchedulerConfig
from slm.training.optim.schedules import Schedule
from slm.training.run.extension import schedule_from, step_before_fall

WSD = ("scheduler=wsd", "scheduler.warmup_steps=2", "scheduler.decay_fraction=0.25", "trainer.max_steps=8")
FEW = ("trainer.val_every=4", "trainer.save_every=1", "trainer.keep=1")


def schedule(name: str = "cosine", steps: int = 500, **settings: Any) -> Schedule:
    warmup = {} if name == "none" else {"warmup_steps": 0.1}
    return Schedule.of(checked(SchedulerConfig, {"name": name, **warmup, **settings}), steps)


def asked(old: Schedule, on_extend: Any) -> SchedulerConfig:
    return replace(old.config, on_extend=on_extend)


@pytest.mark.parametrize("name", ["constant", "none"])
def test_what_never_falls_just_goes_on(name: str) -> None:
    """With the warmup that it had: a tenth of the longer run would have begun again below the peak."""
    old = schedule(name)
    new = schedule_from(old, old.config, 1000, 60)
    assert [new.factor(step) for step in range(0, 500, 7)] == [old.factor(step) for step in range(0, 500, 7)]
    assert new.factor(60) == new.factor(999) == 1.0


def test_a_trapezoid_goes_back_to_before_its_fall() -> None:
    old = schedule("wsd", decay_fraction=0.2, min_lr_ratio=0.0)
    assert (old.falls_at, old.last_before_fall) == (400, 400)
    assert [step_before_fall(old, old.config, steps, at) for steps, at in [(1000, 500), (1000, 401)]] == [400, 400]
    assert step_before_fall(old, old.config, 1000, 400) is None
    assert step_before_fall(old, old.config, 500, 450) is None, "it is no longer than it was"
    assert step_before_fall(old, asked(old, "rewarm"), 1000, 500) is None
    new = schedule_from(old, old.config, 1000, 400)
    assert (new.falls_at, new.warmup) == (800, 50)
    assert [new.factor(step) for step in (400, 800, 900, 1000)] == [1.0, 1.0, 0.5, 0.0]


def test_a_cosine_must_be_asked() -> None:
    """The words say what each choice would do to the rate, in numbers."""
    old = schedule(min_lr_ratio=0.05)
    with pytest.raises(UserError) as refused:
        schedule_from(old, old.config, 1000, 500)
    said = str(refused.value)
    assert (
        "trainer.max_steps=1000: cosine: 50 steps of warmup, down to 5 % of the peak has been followed for 500" in said
    )
    assert "scheduler.on_extend=rewarm (from 5 % of the peak up to it again over the warmup" in said
    assert "scheduler.on_extend=stretch (as if it had been 1000 steps from the start: at once 56.4 %)" in said
    assert "scheduler.on_extend=hold (5 % to the end)" in said


def test_what_a_cosine_may_be_asked_to_do() -> None:
    old = schedule(min_lr_ratio=0.05)
    stretch, hold, rewarm = (schedule_from(old, asked(old, how), 1000, 500) for how in ("stretch", "hold", "rewarm"))
    longer = replace(schedule(steps=1000, min_lr_ratio=0.05, warmup_steps=50), shares_of=500)
    assert [stretch.factor(step) for step in (500, 700)] == [longer.factor(step) for step in (500, 700)]
    assert [hold.factor(step) for step in (500, 999)] == pytest.approx([0.05, 0.05])
    # a tenth of the 500 steps to come rise from where the rate was, without a jump, then down to the end
    assert rewarm.factor(500) == pytest.approx(0.05 + 0.95 / 51)
    assert [rewarm.factor(step) for step in (549, 550, 1000)] == pytest.approx([0.05 + 0.95 * 50 / 51, 1.0, 0.05])
    # and once more, and from a checkpoint on the way, the same
    assert schedule_from(rewarm, rewarm.config, 1000, 600) is rewarm
    again = schedule_from(rewarm, asked(old, "rewarm"), 1500, 1000)
    assert (again.begins_at, again.risen_at) == (1000, 1050)


def test_a_rate_of_0_is_not_held() -> None:
    old = schedule("linear", min_lr_ratio=0.0)
    with pytest.raises(UserError, match="hold: the rate is 0 from step 500 on"):
        schedule_from(old, asked(old, "hold"), 1000, 500)


def test_a_shorter_trapezoid_falls_from_here_on() -> None:
    """``trainer.max_steps`` lowered: its fall would have begun long ago; the rate would jump into the midst of it."""
    old = schedule("wsd", steps=1000, decay_fraction=0.5, min_lr_ratio=0.0)
    new = schedule_from(old, old.config, 600, 450)
    assert [new.factor(step) for step in (450, 525, 600)] == [1.0, 0.5, 0.0]


def test_another_schedule_says_it_all() -> None:
    """And what is not known of the past is asked of nobody."""
    old = schedule()
    assert schedule_from(old, schedule("constant").config, 1000, 500).factor(500) == 1.0
    assert schedule_from(None, old.config, 1000, 500) == schedule(steps=1000)


def test_a_checkpoint_holds_it_as_plain_types() -> None:
    old = schedule_from(schedule(), asked(schedule(), "rewarm"), 1000, 500)
    assert Schedule.from_dict(json.loads(json.dumps(old.to_dict()))) == old
    assert Schedule.from_dict({**old.to_dict(), "of_a_later_version": 1}) == old


# ---- in runs ----


def test_a_finished_trapezoid_becomes_longer(train_tiny: Any, run_cli: Any, metrics_of: Any, tmp_path: Path) -> None:
    """As the run that was meant to be so long from the start, to the last bit; the state of its end stays. Typed again
    after a kill ahead of the first save, it goes back once more."""
    expected = train_tiny("expected", *WSD, *FEW, "trainer.max_steps=16")
    run = train_tiny("run", *WSD, *FEW)
    end = (run / "checkpoints/last.ckpt").read_bytes()
    names = {file.stem for file in (run / "checkpoints").iterdir()}
    assert names == {"last", "best", "step_00000007", "step_00000008", "before_fall_00000006"}
    for stop in ("stop_after=7", "stop_after=null"):
        outcome = run_cli("train", "resume=run", "trainer.max_steps=16", stop)
        assert outcome.status == 0, outcome.err
        if stop == "stop_after=7":
            assert (
                "goes on from before its rate fell, from step 6 (run/checkpoints/before_fall_00000006.ckpt)"
                in outcome.err
            )
            assert "until now wsd: 2 steps of warmup, down to 0 % of the peak from step 6 on, over 8" in outcome.err
            (run / "checkpoints/last.ckpt").write_bytes(end)
    assert metrics_of(run) == metrics_of(expected)
    one, other = (torch.load(place / "checkpoints/last.ckpt", weights_only=True) for place in (run, expected))
    assert all(torch.equal(one["state_dict"][name], tensor) for name, tensor in other["state_dict"].items())
    assert (run / "checkpoints/kept_00000008.ckpt").read_bytes() == end
    noted = json.loads((run / "run.json").read_text())["schedules"]
    assert [(one["from_step"], one["max_steps"]) for one in noted] == [(0, 8), (6, 16)]
    assert run_cli("reproduce", "run=run").out.startswith("equal over 6 steps")


def test_what_is_refused_leaves_the_run_as_it_was(train_tiny: Any, run_cli: Any) -> None:
    """A cosine without a word; a state of within the fall that was named; no state of before the fall."""
    cosine = train_tiny("cosine", "trainer.max_steps=4")
    wsd = train_tiny("wsd", *WSD, *FEW, "trainer.keep=0")
    before = {file: file.read_bytes() for run in (cosine, wsd) for file in run.rglob("*") if file.is_file()}
    outcome = run_cli("train", "resume=cosine", "trainer.max_steps=8")
    assert (outcome.status, "say what the rate is to do: scheduler.on_extend=rewarm" in outcome.err) == (2, True)
    outcome = run_cli("train", "resume=wsd/checkpoints/last.ckpt", "trainer.max_steps=16")
    assert outcome.status == 2
    assert (
        "the rate falls from step 6 on, and resume names a state of after that; name an earlier one, or" in outcome.err
    )
    assert {file: file.read_bytes() for run in (cosine, wsd) for file in run.rglob("*") if file.is_file()} == before
    for file in (wsd / "checkpoints").glob("*_0000000[1-6].ckpt"):
        file.unlink()
    outcome = run_cli("train", "resume=wsd", "trainer.max_steps=16")
    assert "no checkpoint of before that is left; say what it is to do: scheduler.on_extend=rewarm" in outcome.err
    outcome = run_cli("train", "resume=wsd", "trainer.max_steps=12", "scheduler.on_extend=rewarm")
    assert outcome.status == 0, outcome.err
