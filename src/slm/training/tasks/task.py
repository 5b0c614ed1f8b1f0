"""What a task is: its settings (`conf/task/*.yaml`), and the data they make of a run's. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slm.errors import UserError
from slm.registry import TASKS
from slm.schema import checked

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from slm.data.config import CorpusConfig
    from slm.data.datamodule import WindowDataModule
    from slm.tokenizers.base import Tokenizer
    from slm.training.run_config import RunConfig


@dataclass(frozen=True)
class TaskData:
    """What a run trains on.

    Attributes:
        datamodule: batches.
        tokenizer: whose ids they hold; it goes into the bundle.
        tokens_per_byte: of what validation scores, for bits per byte.
        said: about the data, for the person at the terminal.
        report: counts for ``run.json``, plain types.
        callbacks: that the task adds to the run's.
        val_shares: of each part of the validation data in the validation loss.
    """

    datamodule: WindowDataModule
    tokenizer: Tokenizer
    tokens_per_byte: float
    said: str
    report: Mapping[str, Any] = field(default_factory=dict)
    callbacks: tuple[pl.Callback, ...] = ()
    val_shares: Mapping[str, float] = field(default_factory=lambda: {"": 1.0})


class Task(ABC):
    """A way to train. A task is a frozen dataclass of its settings, registered under the name that ``kind`` gives."""

    @abstractmethod
    def check(self, corpus: CorpusConfig) -> None:
        """Raise `UserError` if this is no data for the task."""

    @abstractmethod
    def data(self, run: RunConfig) -> TaskData:
        """Read the data and make batches of it.

        Raises:
            UserError: files are missing or not what they should be, or settings do not fit them.
        """


def task_of(values: Any) -> Task:
    """The task that the configuration's `task` describes; raises `UserError` with all problems."""
    if not isinstance(values, Mapping) or not isinstance(values.get("kind"), str):
        raise UserError(f"task.kind is missing; name a task ({', '.join(TASKS.names())})")
    settings = {key: value for key, value in values.items() if key != "kind"}
    task: Task = checked(TASKS.get(values["kind"]), settings, "task")
    return task
