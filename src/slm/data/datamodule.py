"""The LightningDataModule: loaders over a token store, and the position in the data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from slm.data.samplers import EvalBatches, TrainBatches
from slm.data.token_store import TokenStore
from slm.data.windows import WindowDataset
from slm.errors import UserError


class TextDataModule(pl.LightningDataModule):
    """Windows of one token store as batches.

    Args:
        store: the tokens.
        seq_len: window length T.
        batch_size: windows a batch B on one device.
        num_workers: loader processes; 0 for none.
        seed: of the order of the training windows.
        eval_split: what validation reads.

    Attributes:
        position: samples consumed over all ranks since the start of training. It is the whole
            state of the data: saved in every checkpoint, it makes a resumed run read on with the
            very next sample, at any number of workers or ranks.
    """

    def __init__(
        self,
        store: TokenStore,
        seq_len: int,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        eval_split: str = "val",
    ) -> None:
        super().__init__()
        self.store = store
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.eval_split = eval_split
        self.position = 0
        self._train_loader: _TimedLoader | None = None

    @property
    def waited_s(self) -> float:
        """Seconds that training has waited for batches so far."""
        return self._train_loader.waited_s if self._train_loader is not None else 0.0

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Endless batches from `position` on."""
        dataset = WindowDataset(self.store.tokens("train"), self.seq_len)
        rank, world_size = self._ranks()
        batches = TrainBatches(len(dataset), self.seed, self.position, self.batch_size, rank, world_size)
        self._train_loader = self._loader(dataset, batches)
        return self._train_loader

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Every window of `eval_split`, once."""
        dataset = WindowDataset(self.store.tokens(self.eval_split), self.seq_len)
        rank, world_size = self._ranks()
        return self._loader(dataset, EvalBatches(len(dataset), self.batch_size, rank, world_size))

    def train_batch_taken(self) -> None:
        """Count the micro-batch that all ranks have just begun to train on."""
        self.position += self.batch_size * self._ranks()[1]

    def state_dict(self) -> dict[str, Any]:
        """Position, and what it is a position in."""
        return {
            "position": self.position,
            "seed": self.seed,
            "seq_len": self.seq_len,
            "fingerprint": self.store.fingerprint,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved position.

        Raises:
            UserError: the data, the window or the seed differs from the saved run's.
        """
        mine = self.state_dict()
        different = [f"{k} {state_dict[k]} -> {mine[k]}" for k in mine if k != "position" and mine[k] != state_dict[k]]
        if different:
            raise UserError(
                f"resume: the data is not what the checkpoint was trained on ({'; '.join(different)}); "
                "restore it, or start a new run"
            )
        self.position = state_dict["position"]

    def _loader(self, dataset: WindowDataset, batches: TrainBatches | EvalBatches) -> _TimedLoader:
        return _TimedLoader(
            dataset,
            batch_sampler=batches,  # type: ignore[arg-type]
            collate_fn=_already_a_batch,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # a generator of its own, so that making a loader draws nothing from the global one
            generator=torch.Generator(),
        )

    def _ranks(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)


class _TimedLoader(DataLoader[dict[str, Tensor]]):
    """A DataLoader that knows how long its consumer waited for it."""

    waited_s = 0.0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited_s += time.perf_counter() - start
            yield batch


def _already_a_batch(batch: Any) -> Any:
    return batch
