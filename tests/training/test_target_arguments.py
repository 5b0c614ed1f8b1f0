"""What a class named by its path takes: told ahead of any work, of our own choices ahead of torch."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import slm.conf
import yaml

from slm.errors import UserError
from slm.schema import Count, Flag
from slm.training.optim.config import _TAKES, optimizer_problems, problems_of
from slm.training.parts import instantiated, optimizer_factory

CONF = Path(slm.conf.__path__[0])
OPTIMIZERS = sorted(yaml.safe_load(file.read_text())["_target_"] for file in (CONF / "optimizer").glob("*.yaml"))


def imported(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_every_optimizer_of_conf_is_known() -> None:
    assert sorted(_TAKES) == OPTIMIZERS


@pytest.mark.parametrize("target", OPTIMIZERS)
def test_what_is_known_without_torch_is_what_the_class_says(target: str) -> None:
    """A version of torch that takes more, or less, is to be told here and not to a user."""
    assert {"params", *_TAKES[target]} == set(inspect.signature(imported(target)).parameters)
    (line,) = optimizer_problems({"_target_": target, "lr": 0.1, "weight_deacy": 0.1})
    assert "unknown key 'optimizer.weight_deacy'; did you mean 'weight_decay'?" in line


@pytest.mark.parametrize("target", ["torch.optim.Adagrad", "torch.optim.RAdam", "pytorch_optimizer_of_theirs.Lion"])
def test_of_others_nothing_is_known_without_torch(target: str) -> None:
    assert optimizer_problems({"_target_": target, "lr": 0.1, "rho": 0.1}) == []


@pytest.mark.parametrize(
    ("target", "key", "meant"),
    [
        ("torch.optim.Adagrad", "lr_deca", "lr_decay"),
        ("torch.optim.RMSprop", "alhpa", "alpha"),
        ("torch.optim.LBFGS", "history", "history_size"),
    ],
)
def test_an_optimizer_is_asked_when_it_is_imported(target: str, key: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"unknown key 'optimizer\.{key}'; did you mean '{meant}'\?"):
        optimizer_factory({"_target_": target, "lr": 0.1, key: 0.5}, lora=False)


@pytest.mark.parametrize(
    ("target", "key", "meant"),
    [
        ("pytorch_lightning.callbacks.EarlyStopping", "patienc", "patience"),
        ("pytorch_lightning.callbacks.LearningRateMonitor", "log_momentm", "log_momentum"),
        ("slm.training.watch.loggers.tensorboard", "save_dri", "save_dir"),
    ],
)
def test_so_are_callbacks_and_loggers(target: str, key: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"unknown key 'x\.{key}'; did you mean '{meant}'\?"):
        instantiated({"x": {"_target_": target, key: 1}})


@pytest.mark.parametrize(
    ("target", "key", "meant"),
    [
        ("slm.training.watch.sample_text.SampleText", "promt", "prompt"),
        ("slm.training.watch.loss_watch.LossWatch", "windw", "window"),
    ],
)
def test_callbacks_of_our_own_are_known_without_torch(target: str, key: str, meant: str) -> None:
    (line,) = problems_of({"_target_": target, key: 1}, "callbacks.x")
    assert f"unknown key 'callbacks.x.{key}'; did you mean '{meant}'?" in line


@pytest.mark.parametrize("target", ["json.dumps", "slm.training.watch.loggers.wandb"])
def test_what_takes_any_keyword_is_asked_by_the_call(target: str) -> None:
    assert problems_of({"_target_": target, "anything": 1}, "x", imported(target)) == []


def test_ranges_of_a_users_own_class() -> None:
    """Types of `slm.schema` in its annotations are held to; all others are its own to check."""

    class Mine:
        def __init__(self, every: Count | None = None, loud: Flag = False, place: Path | str = "") -> None: ...

    fine = {"_target_": "x.Mine", "every": None, "loud": True, "place": 3}
    assert problems_of(fine, "callbacks.mine", Mine) == []
    lines = problems_of({"_target_": "x.Mine", "every": 0, "loud": "yes"}, "callbacks.mine", Mine)
    assert [line.partition(" ")[0] for line in lines] == ["callbacks.mine.every", "callbacks.mine.loud"]
