"""Steps to be looked at again, a line of JSON each, with the samples they were made of."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from slm.data.batches.datamodule import WindowDataModule
from slm.files.writing import new_file
from slm.notices import notice
from slm.training.step_figures import StepFigures


class StepLog:
    """A file in the run folder. It is not there before its first line.

    Args:
        file: where.

    Attributes:
        lines: how many there are. A resumed run takes those of its checkpoint and makes the others again.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines = 0

    def go_on_after(self, lines: int) -> None:
        """Keep the first `lines` lines, as when the checkpoint was made that is gone on from."""
        self.lines = lines
        if self.file.is_file():
            kept = self.file.read_bytes().splitlines(keepends=True)[:lines]
            with new_file(self.file) as out:
                out.write(b"".join(kept))

    def add(self, figures: StepFigures, data: WindowDataModule, **more: Any) -> None:
        """Write a line; where that fails it is said instead.

        Args:
            figures: of the step.
            data: what its samples came from.
            **more: other things the line says; numbers that are not finite become text, since JSON has none.
        """
        facts = {
            "step": figures.step,
            **more,
            "grad_norm": figures.grad_norm,
            "positions": list(figures.positions),
            "samples": data.samples_at(*figures.positions),
        }
        line = json.dumps({name: _plain(value) for name, value in facts.items()}, allow_nan=False)
        self.lines += 1
        try:
            with self.file.open("ab") as out:
                out.write(line.encode() + b"\n")
        except OSError as error:
            notice(f"{self.file} cannot be written ({error.strerror}); it was to say {line}")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
