"""Optimizers that give other weights than they train, as schedule-free ones do: they have `train()` and `eval()`."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch.optim import Optimizer


@contextmanager
def averaged_weights(optimizers: Sequence[Optimizer]) -> Iterator[bool]:
    """The model's parameters are what the optimizers give; afterwards, to the bit, what they train. Yields whether
    these differ.

    `eval()` and `train()` of such an optimizer go there and back by a product and a rounding, so that a run would
    change with how often it is looked at: what is trained is kept aside meanwhile. Others give what they train.
    """
    averaging = [optimizer for optimizer in optimizers if hasattr(optimizer, "eval")]
    parameters = [p for optimizer in averaging for group in optimizer.param_groups for p in group["params"]]
    trained = [p.detach().clone() for p in parameters]
    for optimizer in averaging:
        optimizer.eval()
    try:
        yield bool(averaging)
    finally:
        for optimizer in averaging:
            optimizer.train()  # type: ignore[attr-defined]
        with torch.no_grad():
            for p, kept in zip(parameters, trained, strict=True):
                p.copy_(kept)


class AveragedWeights(pl.Callback):
    """Validation, and whatever is called at its end before this, sees the weights that the optimizer gives.

    Checkpoints hold those that it trains, beside its state.
    """

    def __init__(self) -> None:
        self._open = ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A new optimizer of this kind refuses to step before it is told to."""
        for optimizer in trainer.optimizers:
            if hasattr(optimizer, "train"):
                optimizer.train()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._open.enter_context(averaged_weights(trainer.optimizers))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._open.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Whoever saves after this saves what was trained."""
        self._open.close()
