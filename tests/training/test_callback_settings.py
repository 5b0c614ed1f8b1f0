"""What a callback cannot work with is refused before any work, not at the first validation, an hour later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SAMPLE, WATCH = "callbacks.sample_text", "callbacks.loss_watch"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (f"{SAMPLE}.prompt=1", f"{SAMPLE}.prompt should be a valid string; got 1"),
        (f"{SAMPLE}.max_new_tokens=0", f"{SAMPLE}.max_new_tokens should be greater than 0; got 0"),
        (f"{SAMPLE}.temperature=0", f"{SAMPLE}.temperature should be greater than 0; got 0"),
        (f"{SAMPLE}.top_k=-1", f"{SAMPLE}.top_k should be greater than or equal to 0; got -1"),
        (f"{SAMPLE}.seed=-1", f"{SAMPLE}.seed should be greater than or equal to 0; got -1"),
        (f"{WATCH}.window=0", f"{WATCH}.window should be greater than 0; got 0"),
        (f"{WATCH}.window=1", f"{WATCH}.window must be at least 2 steps, to have a difference; got 1"),
        (f"{WATCH}.sigmas=-1", f"{WATCH}.sigmas should be greater than or equal to 0; got -1"),
        (f"{WATCH}.factor=no", f"{WATCH}.factor should be a valid number; got 'no'"),
    ],
)
def test_ranges(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, setting: str, said: str) -> None:
    """All settings of all callbacks that have some. `window=0` ended a run with a traceback after its first step."""
    outcome = run_cli("train", *tiny, "callbacks=loss_watch", "data.path=missing.txt", setting, "run_dir=run")
    assert outcome.status == 2
    assert said in outcome.err
    assert "missing.txt" not in outcome.err, "the data was not looked for"
    assert not (tmp_path / "run").exists()


def test_all_mistakes_at_once(run_cli: Any, tiny: tuple[str, ...]) -> None:
    settings = (f"{SAMPLE}.top_k=-1", f"{SAMPLE}.seed=x", f"{WATCH}.window=0.5", "trainer.max_steps=0")
    outcome = run_cli("train", *tiny, "callbacks=loss_watch", *settings)
    keys = (f"{SAMPLE}.top_k", f"{SAMPLE}.seed", f"{WATCH}.window", "trainer.max_steps")
    assert all(f"{key} should be" in outcome.err for key in keys), outcome.err


@pytest.mark.nightly
@pytest.mark.parametrize("embedding", ["learned", "rotary"])
def test_a_prompt_longer_than_the_window(
    run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, embedding: str, train_tiny: Any
) -> None:
    """Known once there is a tokenizer, still before the first step. What fits trains as without the look at it."""
    kind = f"model.modules.position_embedding.kind={embedding}"
    settings = (kind, "callbacks=default", f"{SAMPLE}.max_new_tokens=4", "model.params.dropout=0.2")
    outcome = run_cli("train", *tiny, *settings, f"{SAMPLE}.prompt={'a' * 16}", "run_dir=run")
    assert outcome.status == 2
    assert outcome.err.splitlines()[-1] == (
        "slm-train: callbacks: sample_text.prompt: the prompt has 16 tokens; this model takes 16, one of them new: "
        "shorten the prompt to 15"
    )
    assert not (tmp_path / "run").exists()
    run = train_tiny("fits", *settings, f"{SAMPLE}.prompt={'a' * 15}")
    plain = train_tiny("plain", kind, "model.params.dropout=0.2")
    assert (run / "model" / "model.safetensors").read_bytes() == (plain / "model" / "model.safetensors").read_bytes()


def test_a_small_window_watches(run_cli: Any, tiny: tuple[str, ...]) -> None:
    """The smallest that is taken, and a loss that is compared with nothing."""
    for window in (2, 3):
        outcome = run_cli(
            "train", *tiny, "callbacks=loss_watch", f"{WATCH}.window={window}", f"{SAMPLE}.max_new_tokens=1"
        )
        assert outcome.status == 0, outcome.err
