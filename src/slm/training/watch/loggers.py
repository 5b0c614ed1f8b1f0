"""Further loggers beside ``metrics.csv``. Each goes on with its series when a run is resumed."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from slm.extras import require
from slm.masking import masked, masked_argument
from slm.training.lightning_seams import opened_experiment


def tensorboard(save_dir: str, resumed_step: int | None = None) -> Logger:
    """Event files in ``<run>/tensorboard``; of a resumed run, what was written after `resumed_step` is hidden."""
    require("tensorboard", "tensorboard", "logger=tensorboard")
    purge: dict[str, Any] = {} if resumed_step is None else {"purge_step": resumed_step + 1}
    return _TensorBoard(save_dir, name="tensorboard", version="", default_hp_metric=False, **purge)


def wandb(save_dir: str, project: str, offline: bool, resumed_id: str | None = None, **settings: Any) -> Logger:
    """A Weights & Biases run, under one id for all parts of a run that is resumed.

    Args:
        save_dir: the run folder.
        project, offline, **settings: arguments of ``wandb.init``; what is secret in those it writes down is masked.
        resumed_id: of a resumed run.
    """
    require("wandb", "wandb", "logger=wandb")
    told = {name: value if name == "settings" else masked(value, name) for name, value in settings.items()}
    run_id = resumed_id or secrets.token_hex(4)
    # absolute, since W&B writes from a process of its own that may have been started in another folder
    folder = str(Path(save_dir).absolute())
    return _Wandb(project=project, save_dir=folder, offline=offline, id=run_id, resume="allow", **told)


class _TensorBoard(TensorBoardLogger):
    """Writes ``hparams.yaml`` anew when a run is resumed: Lightning leaves that of the first session."""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        (Path(self.log_dir) / self.NAME_HPARAMS_FILE).unlink(missing_ok=True)
        super().log_hyperparams(params, *args, **kwargs)


class _Wandb(WandbLogger):
    """Ends its W&B run with the training: in a sweep the next job would go on in it."""

    @property
    def experiment(self) -> Any:
        told = sys.argv  # W&B writes the command line down, and its files lie in the run folder
        sys.argv = [masked_argument(argument) for argument in told]
        try:
            return super().experiment
        finally:
            sys.argv = told

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if (run := opened_experiment(self)) is not None:
            run.finish(exit_code=int(status != "success"))
