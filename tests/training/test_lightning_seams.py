"""Lightning's private parts are as `slm.training.lightning_seams` relies on; a test says what would break."""

from __future__ import annotations

import inspect
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.trainer.connectors.checkpoint_connector import _CheckpointConnector
from pytorch_lightning.trainer.connectors.logger_connector.logger_connector import _LoggerConnector
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector
from torch.utils.data import DataLoader

from slm.training import lightning_seams


class Line(pl.LightningModule):
    """One weight that learns to be 1; each batch makes a step of its own unless the trainer accumulates."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.validated: list[int] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = (self.weight - batch.mean()).square().sum()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.validated.append(batch_idx)
        self.log("val_loss", self.weight.sum())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        return DataLoader(torch.ones(64, 1), batch_size=1)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        return DataLoader(torch.ones(3, 1), batch_size=1)  # type: ignore[arg-type]


def trainer(folder: Path, **settings: Any) -> pl.Trainer:
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"max_steps": 6, "max_epochs": -1, "num_sanity_val_steps": 0, "limit_val_batches": 0, **settings}
    return pl.Trainer(accelerator="cpu", devices=1, default_root_dir=folder, **{**off, **settings})  # type: ignore[arg-type]


def test_a_trainer_has_the_connectors_that_are_replaced(tmp_path: Path) -> None:
    """A connector set under another name would be read by nobody: rows would split, signals end runs unsaved."""
    made = trainer(tmp_path)
    assert type(made._logger_connector) is _LoggerConnector
    assert type(made._signal_connector) is _SignalConnector
    assert type(made._checkpoint_connector) is _CheckpointConnector
    assert isinstance(_LoggerConnector.should_update_logs, property)
    assert [*inspect.signature(_LoggerConnector.log_metrics).parameters] == ["self", "metrics", "step"]
    assert [*inspect.signature(_SignalConnector.register_signal_handlers).parameters] == ["self"]


@pytest.mark.parametrize("accumulated", [1, 2])
def test_what_a_module_logs_has_the_number_of_its_step(tmp_path: Path, accumulated: int) -> None:
    """The first, every second, the last; validation's under the step after which it was made, no epoch beside."""
    logger = CSVLogger(tmp_path, name="", version="")
    settings: dict[str, Any] = {"max_steps": 5, "log_every_n_steps": 2, "limit_val_batches": 3, "logger": logger}
    every = 5 * accumulated
    made = trainer(
        tmp_path,
        **settings,
        accumulate_grad_batches=accumulated,
        val_check_interval=every,
        check_val_every_n_epoch=None,
    )
    lightning_seams.log_under_own_steps(made)
    rows: list[tuple[int, frozenset[str]]] = []
    logger.log_metrics = lambda metrics, step: rows.append((step, frozenset(metrics)))  # type: ignore[assignment, method-assign, misc]
    made.fit(Line())
    trained = {step for step, names in rows if "loss" in names}
    assert {step for step, names in rows if "val_loss" in names} == {5}
    assert trained == {1, 2, 4, 5}
    assert all("step" not in names for _, names in rows)


def test_signals_stay_with_whoever_heeds_them(tmp_path: Path) -> None:
    """Lightning sets its own in `fit`: they would stop a run without saving."""
    seen = []

    class Look(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    for alone in (False, True):
        made = trainer(tmp_path, max_steps=1, callbacks=[Look()])
        if alone:
            lightning_seams.leave_signals_alone(made)
        made.fit(Line())
    assert seen[0] is not before, "Lightning needs no keeping out any more"
    assert seen[1] is before


def test_a_validation_ahead_of_the_first_step(tmp_path: Path) -> None:
    """All its batches, from the first; training goes on as if nothing had been."""

    class Due(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            lightning_seams.validate_now(trainer)
            assert trainer.training
            assert pl_module.training

    module = Line()
    settings = {"limit_val_batches": 3, "val_check_interval": 4, "check_val_every_n_epoch": None}
    made = trainer(tmp_path, max_steps=4, callbacks=[Due()], **settings)
    made.fit(module)
    assert module.validated == [0, 1, 2, 0, 1, 2]
    assert made.global_step == 4


class Saved(pl.Callback):
    """Keeps what a checkpoint of step 3 holds."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == 3 and not self.file.exists():
            trainer.save_checkpoint(self.file)


def test_counts_in_a_checkpoint_are_those_of_its_step(tmp_path: Path) -> None:
    """Saved in the middle of accumulated steps and read with other micro-batches, a run goes on for the steps left."""
    file = tmp_path / "3.ckpt"
    trainer(tmp_path, accumulate_grad_batches=2, callbacks=[Saved(file)], limit_val_batches=3).fit(Line())
    saved: Any = torch.load(file, weights_only=True)
    loop = saved["loops"]["fit_loop"]
    assert loop["epoch_loop.batch_progress"]["total"]["ready"] == 6
    lightning_seams.without_stale_counts(saved)
    assert loop["epoch_loop.state_dict"]["_batches_that_stepped"] == 3
    assert set(loop["epoch_loop.val_loop.batch_progress"]["total"].values()) == {0}
    lightning_seams.count_in_micro_batches(saved, per_step=4)
    assert set(loop["epoch_loop.batch_progress"]["current"].values()) == {12}
    torch.save(saved, file)
    made = trainer(tmp_path, accumulate_grad_batches=4)
    made.fit(Line(), ckpt_path=file, weights_only=True)
    assert made.global_step == 6
    assert made.fit_loop.epoch_loop.batch_progress.total.completed == 24


def test_back_to_a_checkpoint_in_the_middle_of_training(tmp_path: Path) -> None:
    """At the end of step 5 back to step 3: steps 4, 5 and 6 are made again, with the weight of then."""
    file = tmp_path / "3.ckpt"
    steps: list[tuple[int, float]] = []

    class Back(pl.Callback):
        gone = False

        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any) -> None:
            steps.append((trainer.global_step, round(pl_module.weight.item(), 6)))
            if trainer.global_step == 5 and not self.gone:
                self.gone = True
                lightning_seams.restore(trainer, file)

    made = trainer(tmp_path, callbacks=[Saved(file), Back()])
    made.fit(Line())
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5, 4, 5, 6]
    assert steps[3:5] == steps[5:7]
    assert made.global_step == 6
    assert made.fit_loop.epoch_loop._batches_that_stepped == 6


def test_a_run_on_a_server_is_not_begun_by_asking_for_it(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    assert lightning_seams.opened_experiment(logger) is None
