"""The LightningDataModules: loaders over windows of a token store, of conversations, of pairs; and the position."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader

from slm.data.batches.loader import TimedLoader, make_loader
from slm.data.batches.mixture import MixtureStore, Store, stores_of
from slm.data.batches.order import EvalBatches, MixtureOrder, Order, TrainBatches, window_at
from slm.data.batches.packing import PackedSamples, PaddedSamples, SampleWindows
from slm.data.batches.pairs import PairDataset
from slm.data.batches.samples import SampleSet
from slm.data.batches.windows import MixtureWindows, WindowDataset, Windows
from slm.errors import UserError

Batches = DataLoader[dict[str, Tensor]]


class WindowDataModule(pl.LightningDataModule):
    """Windows as batches; a subclass says what they are cut from.

    Attributes:
        datasets: of "train" and "val", or of the only part to be scored; bits per byte are known of counted ones.
        fingerprint: of all that windows hold: equal ones train alike.
        seq_len: window length T.
        batch_size: windows a batch B on one device.
        num_workers: loader processes; 0 for none.
        seed: of the order of the training windows.
        eval_split: what validation reads.
        position: samples consumed over all ranks since the start of training. It is the whole state of the data: saved
            in every checkpoint, it makes a resumed run read on with the very next sample, at any number of workers or
            ranks.
        shares: name of each part, "" of the only one, -> its share of the training samples.
        noun: what a sample is called.
    """

    noun = "windows"
    datasets: Mapping[str, Windows]

    def __init__(
        self,
        fingerprint: str,
        seq_len: int,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        eval_split: str = "val",
    ) -> None:
        super().__init__()
        self.fingerprint = fingerprint
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.eval_split = eval_split
        self.position = 0
        self.shares: Mapping[str, float] = {"": 1.0}
        self._train_loader: TimedLoader | None = None

    @property
    def waited_s(self) -> float:
        """Seconds that training has waited for batches so far."""
        return self._train_loader.waited_s if self._train_loader is not None else 0.0

    def parts(self, split: str) -> Sequence[Windows]:
        """The windows of a split, of each part of a mixture by itself."""
        return [self.datasets[split]]

    def train_dataloader(self) -> Batches:
        """Endless batches from `position` on."""
        parts = self.parts("train")
        batches = TrainBatches(self._order(parts), self.position, self.batch_size, *self._ranks())
        windows = parts[0] if len(parts) == 1 else MixtureWindows(parts)
        self._train_loader = make_loader(windows, batches, self.num_workers)
        return self._train_loader

    def val_dataloader(self) -> Batches | list[Batches]:
        """Every window of `eval_split`, once; a loader for each part."""
        loaders: list[Batches] = [
            make_loader(part, EvalBatches(len(part), self.batch_size, *self._ranks()), self.num_workers)
            for part in self.parts(self.eval_split)
        ]
        return loaders[0] if len(loaders) == 1 else loaders

    def samples_at(self, start: int, end: int) -> list[int]:
        """Windows of the training data at positions ``start .. end - 1``, counted through one part after another."""
        return list(map(int, self._order(self.parts("train"))(np.arange(start, end))))

    def sample(self, window: int) -> tuple[str, dict[str, Tensor]]:
        """The name of a training window's part, and the window as a batch of one; `UserError` if there is none such."""
        parts = self.parts("train")
        ends = np.cumsum([len(part) for part in parts])
        if not 0 <= window < ends[-1]:
            raise UserError(f"sample: there is no window {window}; they are 0 to {ends[-1] - 1}")
        number = int(np.searchsorted(ends, window, side="right"))
        of_part = window - int(ends[number]) + len(parts[number])
        return list(self.shares)[number], parts[number].__getitems__([of_part])

    def train_batch_taken(self) -> None:
        """Count the micro-batch that all ranks have just begun to train on."""
        self.position += self.batch_size * self._ranks()[1]

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("position", "seed", "seq_len", "fingerprint")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved position; `UserError` if the data, the window or the seed differs from the saved run's."""
        mine = self.state_dict()
        different = [f"{k} {state_dict[k]} -> {mine[k]}" for k in mine if k != "position" and mine[k] != state_dict[k]]
        if different:
            raise UserError(
                f"resume: the data is not what the checkpoint was trained on ({'; '.join(different)}); "
                "restore it, or start a new run"
            )
        self.position = state_dict["position"]

    def _order(self, parts: Sequence[Windows]) -> Order:
        sizes = [len(part) for part in parts]
        if len(parts) > 1:
            return MixtureOrder(sizes, list(self.shares.values()), self.seed)
        return partial(window_at, n_windows=sizes[0], seed=self.seed)

    def _ranks(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)


class TextDataModule(WindowDataModule):
    """Windows of a token store, or of a mixture of several; other arguments are as of `WindowDataModule`."""

    def __init__(self, store: Store, *arguments: Any, **others: Any) -> None:
        super().__init__(store.fingerprint, *arguments, **others)
        self.store = store
        self._parts: dict[str, list[WindowDataset]] = {}
        if isinstance(store, MixtureStore):
            self.shares = store.shares

    def parts(self, split: str) -> list[WindowDataset]:
        if split not in self._parts:
            counted = split == self.eval_split
            self._parts[split] = [
                WindowDataset(store.tokens(split), self.seq_len, store.token_bytes(split) if counted else None)
                for store in stores_of(self.store).values()
            ]
        return self._parts[split]


class InstructionDataModule(WindowDataModule):
    """Conversations.

    Args:
        samples: of each of `datasets`.
        vocabulary: the tokenizer's fingerprint.
        packing: several samples share a window, by the seed; else each has a row.
        *arguments, **others: as of `WindowDataModule`.
    """

    datasets: Mapping[str, SampleWindows]

    def __init__(
        self, samples: Mapping[str, SampleSet], vocabulary: str, packing: bool, *arguments: Any, **others: Any
    ) -> None:
        inputs = [vocabulary, str(packing), *(part.fingerprint for part in samples.values())]
        super().__init__(hashlib.sha256(" ".join(inputs).encode()).hexdigest(), *arguments, **others)
        windows = partial(PackedSamples, seed=self.seed) if packing else PaddedSamples
        self.datasets = {
            split: windows(part, self.seq_len, counted=split == self.eval_split) for split, part in samples.items()
        }


class PairDataModule(WindowDataModule):
    """Pairs of answers; all arguments but `datasets` are as of `WindowDataModule`."""

    noun = "pairs"
    datasets: Mapping[str, PairDataset]

    def __init__(self, datasets: Mapping[str, PairDataset], fingerprint: str, *arguments: Any, **others: Any) -> None:
        super().__init__(fingerprint, *arguments, **others)
        self.datasets = datasets
