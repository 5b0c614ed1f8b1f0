"""slm-plan as one types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from documented_json import differences

Run = Callable[..., Any]


def test_a_plan_says_what_the_run_then_is(run_cli: Run, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Parameters, steps and tokens to the last one, the checkpoint's size to a few parts in a hundred; and nothing is
    left where it was typed."""
    answer = run_cli("plan", *tiny, "json=true", "timing_s=0.1", "budget=1e15")
    assert (answer.status, list(tmp_path.iterdir())) == (0, []), answer.err
    assert differences("slm-plan", answer.out) == []
    said = json.loads(answer.out)
    assert run_cli("train", *tiny, "run_dir=run").status == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert said["tokens"] == summary["tokens"] == said["steps"] * said["batch"]["tokens_a_step"]
    from safetensors import safe_open

    with safe_open(tmp_path / "run/model/model.safetensors", "np") as weights:
        counts = sum(weights.get_tensor(name).size for name in weights.keys())  # noqa: SIM118
    assert said["parameters"]["total"] == counts
    written = (tmp_path / "run/checkpoints/last.ckpt").stat().st_size
    assert said["disk"]["checkpoint"] == pytest.approx(written, rel=0.2)
    assert said["time"]["measured"]
    assert sum(said["memory"]["by_kind"].values()) == said["memory"]["peak"]
    best = said["budget"]["best"]
    assert 13 < best["tokens"] / best["parameters"] < 30  # 20, but a width is a number of heads


def test_a_plan_in_words(run_cli: Run, tiny: tuple[str, ...]) -> None:
    answer = run_cli("plan", *tiny, "timing_s=0.0", "fit=8GiB", "budget=1e12", "device=cuda")
    assert answer.status == 0, answer.err
    words = ("FLOPs a step", "nobody has verified", "not measured", "trainer.batch_size=", "Chinchilla")
    for said in words:
        assert said in answer.out


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("fit=lots", "slm-plan: fit must be a size of memory, e.g. 24GiB or 8GB; got 'lots'"),
        ("budget=soon", "slm-plan: budget must be a time (30min, 2h) or a number of FLOPs (1e15); got 'soon'"),
        ("device=tpu", "slm-plan: device should be 'cpu' or 'cuda'; got 'tpu'"),
        ("trainer.max_step=3", "slm-plan: unknown key 'trainer.max_step'; did you mean 'trainer.max_steps'?"),
        ("resume=auto", "slm-plan: resume=auto: slm-plan says what a whole run costs; leave resume out"),
        ("model=gpt9", "slm-plan: model has no choice 'gpt9'"),
    ],
)
def test_mistakes(run_cli: Run, tiny: tuple[str, ...], setting: str, problem: str) -> None:
    answer = run_cli("plan", *tiny, setting)
    assert (answer.status, answer.out) == (2, "")
    assert problem in answer.err
    assert "Traceback" not in answer.err
