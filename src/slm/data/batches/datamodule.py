"""The LightningDataModules: loaders over windows of a token store, of conversations, of pairs; and the position."""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_convert

from slm.data.batches.mixture import MixtureStore, Store
from slm.data.batches.order import EvalBatches, MixtureOrder, Order, TrainBatches, window_at
from slm.data.batches.pairs import PairDataset
from slm.data.batches.samples import SampleSet, SampleWindows
from slm.data.batches.windows import IGNORE_INDEX, TEXT_BYTES, MixtureWindows, WindowDataset, Windows
from slm.data.batches.words import WordsSeen, WordStarts
from slm.errors import UserError
from slm.tokenizers.base import Tokenizer


class TimedLoader(DataLoader[dict[str, Tensor]]):
    """A DataLoader that knows how many seconds its consumer has waited for it."""

    waited_s = 0.0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]
        batches, start = super().__iter__(), time.perf_counter()
        for batch in batches:
            self.waited_s += time.perf_counter() - start
            yield batch
            start = time.perf_counter()


def _loader(windows: Windows, batches: TrainBatches | EvalBatches, num_workers: int) -> TimedLoader:
    is_idle = isinstance(batches, EvalBatches) and batches.is_idle
    return TimedLoader(
        windows,
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=_without_labels if is_idle else default_convert,  # what comes is a batch already
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        worker_init_fn=_leave_signals_to_the_run,
        pin_memory=torch.cuda.is_available(),
        # a generator of its own, so that making a loader draws nothing from the global one
        generator=torch.Generator(),
    )


def _without_labels(batch: Any) -> Any:
    counted = {TEXT_BYTES: 0.0} if TEXT_BYTES in batch else {}
    return {**batch, "labels": torch.full_like(batch["labels"], IGNORE_INDEX), **counted}


def _leave_signals_to_the_run(worker: int) -> None:
    """Terminals and Slurm signal loaders too, which the run needs to finish its step: they heed its SIGTERM alone."""
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where a loader dies of SIGTERM
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_heed_the_run, daemon=True).start()


def _heed_the_run() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class WindowDataModule(pl.LightningDataModule):
    """Windows as batches; a subclass says what they are cut from."""

    noun = "windows"  # what a sample is called
    datasets: Mapping[str, Windows]  # of "train" and "val", or of the only part to be scored

    def __init__(
        self,
        fingerprint: str,  # of all that windows hold: equal ones train alike
        seq_len: int,
        batch_size: int,  # windows on one device
        num_workers: int = 0,
        seed: int = 0,  # of the order of the training windows
        eval_split: str = "val",
    ) -> None:
        super().__init__()
        self.fingerprint, self.seq_len, self.batch_size = fingerprint, seq_len, batch_size
        self.num_workers, self.seed, self.eval_split = num_workers, seed, eval_split
        # Samples consumed over all ranks since the start of training. It is the whole state of the data: saved in every
        # checkpoint, it makes a resumed run read on with the very next sample, at any number of workers or ranks.
        self.position = 0
        self.shares: Mapping[str, float] = {"": 1.0}  # of each part, "" for the only one, in the training samples
        self.words: WordsSeen | None = None  # where they are counted
        self._train_loader: TimedLoader | None = None

    def count_words(self, tokenizer: Tokenizer) -> WordsSeen:
        """From here on `words` tells how many words of training text lie ahead of a position; `UserError` where that
        cannot be known."""
        parts, starts = self.parts("train"), WordStarts(tokenizer)
        self.words = WordsSeen(np.concatenate([part.words(starts) for part in parts]), self._order(parts))
        return self.words

    @property
    def waited_s(self) -> float:
        """Seconds that training has waited for batches so far."""
        return self._train_loader.waited_s if self._train_loader is not None else 0.0

    def parts(self, split: str) -> Sequence[Windows]:
        """The windows of a split, of each part of a mixture by itself."""
        return [self.datasets[split]]

    def train_dataloader(self) -> TimedLoader:
        """Endless batches from `position` on."""
        parts = self.parts("train")
        batches = TrainBatches(self._order(parts), self.position, self.batch_size, *self._ranks())
        windows = parts[0] if len(parts) == 1 else MixtureWindows(parts)
        self._train_loader = _loader(windows, batches, self.num_workers)
        return self._train_loader

    def val_dataloader(self) -> TimedLoader | list[TimedLoader]:
        """Every window of `eval_split`, once; a loader for each part."""
        loaders = [
            _loader(part, EvalBatches(len(part), self.batch_size, *self._ranks()), self.num_workers)
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
    """Windows of a token store, or of a mixture of several."""

    def __init__(self, store: Store, *arguments: Any, **others: Any) -> None:
        super().__init__(store.fingerprint, *arguments, **others)
        self.store = store
        self._parts: dict[str, list[WindowDataset]] = {}
        if isinstance(store, MixtureStore):
            self.shares = store.shares

    def parts(self, split: str) -> list[WindowDataset]:
        if split not in self._parts:
            counted = split == self.eval_split
            stores = self.store.stores.values() if isinstance(self.store, MixtureStore) else [self.store]
            self._parts[split] = [
                WindowDataset(store.tokens(split), self.seq_len, store.token_bytes(split) if counted else None)
                for store in stores
            ]
        return self._parts[split]


class InstructionDataModule(WindowDataModule):
    """Conversations; with `packing` several samples share a window, by the seed, else each has a row."""

    datasets: Mapping[str, SampleWindows]

    def __init__(
        self, samples: Mapping[str, SampleSet], vocabulary: str, packing: bool, *arguments: Any, **others: Any
    ) -> None:
        inputs = [vocabulary, str(packing), *(part.fingerprint for part in samples.values())]
        super().__init__(hashlib.sha256(" ".join(inputs).encode()).hexdigest(), *arguments, **others)
        packed_by = self.seed if packing else None
        self.datasets = {
            split: SampleWindows(part, self.seq_len, packed_by, counted=split == self.eval_split)
            for split, part in samples.items()
        }


class PairDataModule(WindowDataModule):
    """Pairs of answers."""

    noun = "pairs"
    datasets: Mapping[str, PairDataset]

    def __init__(self, datasets: Mapping[str, PairDataset], fingerprint: str, *arguments: Any, **others: Any) -> None:
        super().__init__(fingerprint, *arguments, **others)
        self.datasets = datasets
