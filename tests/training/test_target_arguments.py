"""What a class takes, read from its source: the same that the class itself says."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from slm.training.optim.target_arguments import arguments_of

TARGETS = [
    "torch.optim.AdamW",
    "torch.optim.SGD",
    "torch.optim.LBFGS",
    "slm.training.optim.muon.Muon",
    "slm.training.watch.loggers.tensorboard",
    "slm.training.watch.sample_text.SampleText",
    "slm.training.watch.progress.RunProgress",
    "pytorch_lightning.callbacks.EarlyStopping",
    "pytorch_lightning.callbacks.LearningRateMonitor",
]


@pytest.mark.parametrize("target", TARGETS)
def test_the_source_tells_what_the_class_says(target: str) -> None:
    module, _, name = target.rpartition(".")
    expected = set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    assert arguments_of(target) == expected


@pytest.mark.parametrize(
    "target",
    [
        "json.dumps",
        "os.system",
        "no_such_module.thing",
        "torch.optim.NoSuch",
        "AdamW",
        "",
        "slm.training.watch.loggers.wandb",
    ],
)
def test_what_it_does_not_tell_is_none(target: str) -> None:
    """Any number of keywords, C, nothing there: then the class itself is asked when it is made."""
    assert arguments_of(target) is None


def test_modules_that_take_from_each_other_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cycle_a.py").write_text("from cycle_b import thing\n")
    (tmp_path / "cycle_b.py").write_text("from cycle_a import thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert arguments_of("cycle_a.thing") is None
