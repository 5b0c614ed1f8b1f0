"""Files removed under a running process, a clock that jumps, a disk that is slow: the run learns the same, and says."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.nightly

RUN = (
    "trainer.max_steps=12",
    "trainer.val_every=4",
    "trainer.save_every=3",
    "trainer.keep=2",
    "model.params.dropout=0.1",
)

REMOVING = """
import shutil
from pathlib import Path
import pytorch_lightning as pl

class Removing(pl.Callback):
    def __init__(self, path, step):
        self.path, self.step = Path(path), step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            while self.path.is_dir():  # it may just be written to
                shutil.rmtree(self.path, ignore_errors=True)
            self.path.unlink(missing_ok=True)
"""


@pytest.fixture
def learn(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> Callable[..., Any]:
    """``learn("name", *settings)``: `RUN` in a folder of that name, with a cache of its own; how it ended."""
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    return lambda name, *settings: run_cli("train", *tiny, *RUN, cache, f"run_dir={name}", *settings)


def weights(run: Path) -> dict[str, torch.Tensor]:
    content: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 12
    return content["state_dict"]


def same_weights(one: Path, other: Path) -> bool:
    return all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())


@pytest.mark.parametrize("what", ["run/checkpoints", "run/metrics.csv", "run/model", "run", "cache/token_stores"])
def test_removed_while_training(
    learn: Any, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metrics_of: Any
) -> None:
    """The next save, row (with the one before it) or bundle makes it again; the tokens are mapped, and stay."""
    assert learn("whole").status == 0
    (tmp_path / "removing.py").write_text(REMOVING)
    monkeypatch.syspath_prepend(tmp_path)
    removing = [f"+callbacks.r.{key}={value}" for key, value in (("_target_", "removing.Removing"), ("step", 6))]
    outcome = learn("run", *removing, f"+callbacks.r.path={tmp_path / what}")
    assert outcome.status == 0, outcome.err
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert same_weights(run, whole)
    for name in ("model/model.safetensors", "model/config.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    rows = metrics_of(run)
    assert rows == metrics_of(whole)[-len(rows) :]
    assert (len(rows) == 12) == (what not in ("run", "run/metrics.csv"))
    if len(rows) < 12:
        assert "metrics.csv is gone; it begins anew with step 6" in outcome.err
    if what.startswith("cache"):
        assert learn("again").status == 0
        assert same_weights(tmp_path / "again", whole)


def test_a_clock_that_jumps(learn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days forth and back at every look at it, and files dated so: what is kept goes by steps."""
    assert learn("whole").status == 0
    jumps = itertools.cycle([0.0, 4e5, -9e5, 1e5, -3e5])
    now, replace = time.time, os.replace

    def dated(source: Any, target: Any) -> None:
        os.utime(source, (now() + next(jumps),) * 2)
        replace(source, target)

    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    monkeypatch.setattr(os, "replace", dated)
    outcome = learn("run", "stop_after=7")
    assert outcome.status == 0, outcome.err
    outcome = learn("run", "resume=auto")
    assert outcome.status == 0, outcome.err
    monkeypatch.undo()
    assert same_weights(tmp_path / "run", tmp_path / "whole")
    names = [{file.name for file in (tmp_path / run / "checkpoints").iterdir()} for run in ("run", "whole")]
    assert names[0] == names[1]


def test_a_slow_disk(learn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metrics_of: Any) -> None:
    """Every flush and every rename takes a fifth of a second."""
    assert learn("whole").status == 0
    slept = 0

    def slow(function: Callable[..., Any]) -> Callable[..., Any]:
        def later(*arguments: Any, **named: Any) -> Any:
            nonlocal slept
            slept += 1
            time.sleep(0.2)
            return function(*arguments, **named)

        return later

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, slow(getattr(os, name)))
    outcome = learn("run")
    monkeypatch.undo()
    assert outcome.status == 0, outcome.err
    assert slept > 8
    assert same_weights(tmp_path / "run", tmp_path / "whole")
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")
    shutil.rmtree(tmp_path / "run")
