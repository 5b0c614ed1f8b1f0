"""Further loggers beside ``metrics.csv``. Each goes on with its series when a run is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from slm.extras import require

WANDB_ID_FILE = "wandb_id"


def tensorboard(save_dir: str, resumed_step: int | None = None) -> Logger:
    """Event files in ``<run>/tensorboard``.

    Args:
        save_dir: the run folder.
        resumed_step: of a resumed run; what was written after it is hidden.
    """
    require("tensorboard", "tensorboard", "logger=tensorboard")
    purge = {} if resumed_step is None else {"purge_step": resumed_step + 1}
    return TensorBoardLogger(save_dir, name="tensorboard", version="", default_hp_metric=False, **purge)


def wandb(save_dir: str, project: str, offline: bool, resumed_step: int | None = None, **settings: Any) -> Logger:
    """A Weights & Biases run, under one id for all parts of a run that was resumed.

    Args:
        save_dir: the run folder; the id is kept in it.
        project, offline: as in ``wandb.init``.
        resumed_step: of a resumed run.
        **settings: more arguments of ``wandb.init``.
    """
    module = require("wandb", "wandb", "logger=wandb")
    id_file = Path(save_dir) / WANDB_ID_FILE
    if resumed_step is None or not id_file.is_file():
        id_file.parent.mkdir(parents=True, exist_ok=True)
        id_file.write_text(module.util.generate_id())
    return WandbLogger(
        project=project, save_dir=save_dir, offline=offline, id=id_file.read_text(), resume="allow", **settings
    )
