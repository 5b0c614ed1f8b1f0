"""Lightning's own chatter, turned off: what matters of it is said here in one line each."""

from __future__ import annotations

import logging
import warnings


def quiet_lightning() -> None:
    """Silence hints about devices, loaders and workers that do not apply or are decided here."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*TensorFloat32 tensor cores.*")  # trainer.precision says what is meant
