"""Batches out of loader processes: how long they are waited for, and which signals these processes heed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_convert

from slm.data.batches.order import EvalBatches, TrainBatches
from slm.data.batches.windows import IGNORE_INDEX, TEXT_BYTES, Windows


class TimedLoader(DataLoader[dict[str, Tensor]]):
    """A DataLoader that knows how many seconds its consumer has waited for it."""

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


def make_loader(windows: Windows, batches: TrainBatches | EvalBatches, num_workers: int) -> TimedLoader:
    """Of these batches of windows, read by as many processes, or by this one."""
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
    """Called in each loader process as it begins.

    A terminal and Slurm signal all processes of a run. If the loaders died of it, the run could not finish its step: so
    a loader heeds SIGTERM from the run alone, which ends its loaders so.
    """
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
