"""Pairs of answers as batches; order, position and state are those of running text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slm.data.batches.datamodule import WindowDataModule
from slm.data.batches.pairs import PairDataset


class PairDataModule(WindowDataModule):
    """One `PairDataset` a split.

    Args:
        datasets: of "train" and "val".
        fingerprint: of both.
        **others: as `WindowDataModule` takes them.
    """

    noun = "pairs"

    def __init__(self, datasets: Mapping[str, PairDataset], fingerprint: str, *arguments: Any, **others: Any) -> None:
        super().__init__(fingerprint, *arguments, **others)
        self.datasets = datasets

    def parts(self, split: str) -> list[PairDataset]:
        """The pairs of "train" or "val"."""
        return [self.datasets[split]]
