"""What a precision setting means on the machine at hand."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from lightning_fabric.connector import _PRECISION_INPUT

from slm.training import plan
from slm.training.config import PRECISIONS, SHORT_NAMES
from slm.training.plan import resolve_precision


def test_every_name_is_one_of_lightning() -> None:
    """A name in our list that Lightning refuses would fail after the data was made."""
    known = {str(value) for kind in get_args(_PRECISION_INPUT) for value in get_args(kind)}
    assert set(PRECISIONS) - {"auto"} <= known
    assert set(SHORT_NAMES.values()) <= known
    assert "transformer-engine" not in PRECISIONS, "needs a package of its own"


@pytest.mark.parametrize(
    ("asked", "device", "name"),
    [
        (16, "cpu", "bf16-mixed"),
        ("16-true", "cpu", "bf16-true"),
        (16, "cuda", "16-mixed"),
        ("bf16", "cpu", "bf16-mixed"),
        (32, "cpu", "32-true"),
        ("64-true", "cpu", "64-true"),
    ],
)
def test_what_is_asked_for(asked: Any, device: str, name: str) -> None:
    chosen, reason = resolve_precision(asked, device, 16)
    assert chosen == name
    assert ("fp16 needs a GPU" in reason) == (str(asked).startswith("16") and device == "cpu")


@pytest.mark.parametrize(("speedup", "name"), [(0.8, "32-true"), (1.05, "32-true"), (3.0, "bf16-mixed")])
def test_auto_on_a_cpu_goes_by_the_clock(monkeypatch: pytest.MonkeyPatch, speedup: float, name: str) -> None:
    """bf16 only where it is clearly faster; many a CPU only emulates it."""
    monkeypatch.setattr(plan, "bf16_speedup", lambda dim: speedup)
    assert resolve_precision("auto", "cpu", 16)[0] == name


def test_the_probe_draws_no_random_number() -> None:
    """Else a run with precision auto would have other weights than one with 32."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert plan.bf16_speedup(16, repeats=1) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_sixteen_runs_on_a_cpu_and_says_what_it_used(run_cli: Any, tiny: tuple[str, ...]) -> None:
    outcome = run_cli("train", *tiny, "trainer.precision=16", "run_dir=run")
    assert outcome.status == 0, outcome.err
    assert (
        "precision bf16-mixed (16 was asked for, but fp16 needs a GPU; on this CPU bf16 takes its place)" in outcome.err
    )


def test_a_resumed_run_keeps_what_auto_chose(
    run_cli: Any, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock may choose otherwise the second time, and the run would no longer be one run."""
    monkeypatch.setattr(plan, "bf16_speedup", lambda dim: 2.0)
    assert run_cli("train", *tiny, "trainer.precision=auto", "run_dir=run", "stop_after=2").status == 0
    monkeypatch.setattr(plan, "bf16_speedup", lambda dim: 0.5)
    assert "precision bf16-mixed (as before the interruption)" in run_cli("train", "resume=run").err
