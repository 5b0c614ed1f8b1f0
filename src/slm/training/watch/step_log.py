"""Steps to be looked at again, a line of JSON each, with the samples they were made of."""

import json
import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from slm.files.writing import new_file
from slm.notices import notice
from slm.training.figures import StepFigures


class StepLog:
    """A file in the run folder, which is not there before its first line."""

    def __init__(self, name: str) -> None:
        self.file = Path(name)
        self.lines = 0  # that it has; before it is opened, those of the checkpoint that is gone on from

    def open(self, trainer: pl.Trainer) -> None:
        """In the trainer's folder; of what is there the first `lines` stay."""
        self.file = Path(trainer.default_root_dir) / self.file.name
        if trainer.is_global_zero and self.file.is_file():
            kept = self.file.read_bytes().splitlines(keepends=True)[: self.lines]
            with new_file(self.file) as out:
                out.write(b"".join(kept))

    def add(self, figures: StepFigures, trainer: pl.Trainer, **more: Any) -> None:
        """Write a line of a step, and `more`; where that fails it is said instead."""
        facts = {
            "step": figures.step,
            **more,
            "grad_norm": figures.grad_norm,
            "positions": list(figures.positions),
            "samples": trainer.datamodule.samples_at(*figures.positions),  # type: ignore[attr-defined]
        }
        told = {name: str(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in facts.items()}
        line = json.dumps(told, allow_nan=False)  # which has no numbers that are not finite
        self.lines += 1
        try:
            with self.file.open("ab") as out:
                out.write(line.encode() + b"\n")
        except OSError as error:
            notice(f"{self.file} cannot be written ({error.strerror}); it was to say {line}")
