"""What a task is: its settings (`conf/task/*.yaml`), and the data they make of a run's. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator

from slm.data.config import CONVERSATIONS, PREFERENCES
from slm.errors import UserError
from slm.registry import TASKS, TEMPLATES
from slm.schema import Text, checked
from slm.training.optim.config import fine_tuning_lr

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch import nn

    from slm.data.batches.datamodule import WindowDataModule
    from slm.data.config import CorpusConfig, DataConfig
    from slm.models.config import ModelConfig
    from slm.tokenizers.base import Tokenizer
    from slm.training.answers import HowMany
    from slm.training.lit_module import LanguageModelModule
    from slm.training.run_config import RunConfig


AUTO = "auto"
_READS = {CONVERSATIONS: "sft", PREFERENCES: "dpo"}

Part = Literal["train", "val", "all"]
"""Which part of the data a finished model is scored on."""


def _template(name: str) -> str:
    if name != AUTO:
        TEMPLATES.check(name)
    return name


TemplateName = Annotated[Text, AfterValidator(_template)]
"""A chat template of the registry, or ``auto``, which each task reads in its own way."""


@dataclass(frozen=True)
class TaskData:
    """What a run trains on.

    Attributes:
        datamodule: batches.
        tokenizer: whose ids they hold; it goes into the bundle.
        said: about the data, for the person at the terminal.
        report: counts for ``run.json``, plain types.
        callbacks: that the task adds to the run's.
        val_shares: of each part of the validation data in the validation loss.
        make_module: makes what trains a model, with the arguments of `LanguageModelModule`; None for that one.
        chat: what the run shows of the model's words answers prompts where there is a chat template (``auto``), or goes
            on with them.
        prepare: asks the model whatever has to be asked of it before it is trained; None for nothing.
        keep: writes into the run's folder what `prepare` wants of it when the run is resumed.
    """

    datamodule: WindowDataModule
    tokenizer: Tokenizer
    said: str
    report: Mapping[str, Any] = field(default_factory=dict)
    callbacks: tuple[pl.Callback, ...] = ()
    val_shares: Mapping[str, float] = field(default_factory=lambda: {"": 1.0})
    make_module: Callable[..., LanguageModelModule] | None = None
    chat: Literal["auto", False] = "auto"
    prepare: Callable[[nn.Module, Preparing], None] | None = None
    keep: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class Preparing:
    """Attributes:
    device: where the model will be trained: "cpu", "cuda", …
    precision: Lightning's name of the one in which.
    resumed_from: the folder of the run to go on with, whose weights the model does not have yet; None for a new run.
    """

    device: str
    precision: str
    resumed_from: Path | None


@dataclass(frozen=True)
class Evaluation:
    """What a finished model is scored on.

    Attributes:
        data: a corpus and its windows.
        part: of that.
        batch_size: windows, or pairs, at a time.
        model: its shape.
        tokenizer: its own, with its chat template where it has one.
        answers: how many questions it answers, where the task knows the answers.
        answers_file: where they go; None for nowhere.
        run: the folder of the run that made it; None for a model without one.
        reference: the weights that training began with, for a task that compares with them.
    """

    data: DataConfig
    part: Part
    batch_size: int
    model: ModelConfig
    tokenizer: Tokenizer
    answers: HowMany = 0
    answers_file: Path | None = None
    run: Path | None = None
    reference: nn.Module | None = None


class Task(ABC):
    """A way to train. A task is a frozen dataclass of its settings, registered under the name that ``kind`` gives.

    Attributes:
        rows_a_sample: that the model is given for one sample of the data.
    """

    rows_a_sample: ClassVar[int] = 1

    @abstractmethod
    def check(self, corpus: CorpusConfig) -> None:
        """Raise `UserError` if this is no data for the task."""

    @abstractmethod
    def data(self, run: RunConfig) -> TaskData:
        """Read the data and make batches of it.

        Raises:
            UserError: files are missing or not what they should be, or settings do not fit them.
        """

    def fine_tuning_lr(self, width: int) -> float:
        """Adam's peak rate (``lr=auto``) for all weights of a model that exists, of this width."""
        return fine_tuning_lr(width)

    def evaluation(self, asked: Evaluation) -> TaskData:
        """The same for a model that is only scored: `TaskData.report` is part of what it is told beside the figures.

        Raises:
            UserError: as `data`; or the task does not score models (which one of yours need not).
        """
        raise UserError(f"{type(self).__name__} says of no model how good it is (its class has no `evaluation`)")


def said_of_time(tokenizer: Tokenizer, time: datetime) -> list[str]:
    """A line where the chat template writes the time: it is that of the run's start in all its sessions."""
    if "strftime_now" not in (tokenizer.chat_template or ""):
        return []
    return [f"the chat template writes the date; in this run it is {time:%d %b %Y} to the end, resumed or not"]


def task_of(values: Any) -> Task:
    """The task that the configuration's `task` describes; raises `UserError` with all problems."""
    if not isinstance(values, Mapping) or not isinstance(values.get("kind"), str):
        raise UserError(f"task.kind is missing; name a task ({', '.join(TASKS.names())})")
    settings = {key: value for key, value in values.items() if key != "kind"}
    task: Task = checked(TASKS.get(values["kind"]), settings, "task")
    return task


def task_for(corpus: CorpusConfig, own: Mapping[str, Any] | None, changes: Mapping[str, Any]) -> Task:
    """The task that a model is scored by on `corpus`.

    Args:
        corpus: what it is scored on.
        own: settings of the task that the model was trained by, which is taken if it reads such data.
        changes: of its settings, or of the defaults of the task that does read it.

    Raises:
        UserError: a setting is unknown, or of another type or range.
    """
    settings = own if own and _reads(task_of(own), corpus) else {"kind": _READS.get(corpus.kind, "pretrain")}
    task = task_of({**settings, **changes})
    task.check(corpus)
    return task


def _reads(task: Task, corpus: CorpusConfig) -> bool:
    try:
        task.check(corpus)
    except UserError:
        return False
    return True
