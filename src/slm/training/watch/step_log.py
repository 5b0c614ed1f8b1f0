"""Steps to be looked at again, a line of JSON each, with the samples they were made of."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from slm.data.batches.datamodule import WindowDataModule
from slm.files.writing import new_file
from slm.notices import notice
from slm.training.figures import StepFigures


class StepLog:
    """A file in the run folder, which is not there before its first line."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines = 0

    def go_on_after(self, lines: int) -> None:
        """Keep the first `lines` lines: those of the checkpoint that is gone on from."""
        self.lines = lines
        if self.file.is_file():
            kept = self.file.read_bytes().splitlines(keepends=True)[:lines]
            with new_file(self.file) as out:
                out.write(b"".join(kept))

    def add(self, figures: StepFigures, data: WindowDataModule, **more: Any) -> None:
        """Write a line of a step whose samples came from `data`, and `more`; where that fails it is said instead."""
        facts = {
            "step": figures.step,
            **more,
            "grad_norm": figures.grad_norm,
            "positions": list(figures.positions),
            "samples": data.samples_at(*figures.positions),
        }
        told = {name: str(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in facts.items()}
        line = json.dumps(told, allow_nan=False)  # which has no numbers that are not finite
        self.lines += 1
        try:
            with self.file.open("ab") as out:
                out.write(line.encode() + b"\n")
        except OSError as error:
            notice(f"{self.file} cannot be written ({error.strerror}); it was to say {line}")
