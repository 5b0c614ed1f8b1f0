"""What a task is: its settings (`conf/task/*.yaml`), and the data they make of what it is given. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator

from slm.data.config import CONVERSATIONS, PREFERENCES, UNPAIRED
from slm.errors import UserError
from slm.notices import as_typed
from slm.registry import TASKS, TEMPLATES
from slm.schema import FORBID_EXTRA, Text, checked
from slm.training.config import AUTO
from slm.training.optim.config import fine_tuning_lr

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch import nn

    from slm.data.batches.datamodule import WindowDataModule
    from slm.data.config import CorpusConfig, DataConfig
    from slm.data.faults import Faults
    from slm.models.config import ModelConfig
    from slm.tokenizers.base import Tokenizer
    from slm.training.answers import HowMany
    from slm.training.lit_module import LanguageModelModule

_READS = {CONVERSATIONS: "sft", PREFERENCES: "dpo", UNPAIRED: "kto"}


@dataclass(frozen=True)
class TaskInputs:
    """What a task makes its data of: for a run to train, or (with `part`) for a finished model to be scored."""

    data: DataConfig  # a corpus and its windows
    model: ModelConfig
    batch_size: int  # samples a device takes at once
    known: Tokenizer | None  # of weights that exist, with its chat template where it has one; None from scratch
    new_tokenizer: Mapping[str, Any] | None = None  # kind and settings of one to be made of the data; None: `known`
    seed: int = 0  # of the order of the training data
    template_time: datetime | None = None  # what a chat template that writes the time writes; None for now
    run: Path | None = None  # the folder of the run that is gone on with, or that made the model
    part: Literal["train", "val", "test", "all"] | None = None  # on which a finished model is scored; None to train
    answers: HowMany | None = None  # questions the model answers, where the task knows the answers; None: as it says
    answers_file: Path | None = None  # where these go
    reference: nn.Module | None = None  # weights to compare with; None for those that the run began with

    @property
    def windows(self) -> dict[str, Any]:
        """What every `WindowDataModule` takes of this; a model that is scored has no use for loader processes."""
        own = {"num_workers": self.data.num_workers} if self.part is None else {"eval_split": self.part}
        return {"seq_len": self.data.seq_len, "batch_size": self.batch_size, "seed": self.seed, **own}


@dataclass(frozen=True)
class TaskData:
    """What a run trains on, or a model is scored on."""

    datamodule: WindowDataModule
    tokenizer: Tokenizer  # whose ids the batches hold; it goes into the bundle
    said: str  # about the data, for the person at the terminal
    report: Mapping[str, Any] = field(default_factory=dict)  # counts for ``run.json``, or beside the figures; plain
    callbacks: tuple[pl.Callback, ...] = ()  # that the task adds to the run's
    # of each part of the validation data in the validation loss
    val_shares: Mapping[str, float] = field(default_factory=lambda: {"": 1.0})
    # makes what trains a model, with the arguments of `LanguageModelModule`; None for that one
    make_module: Callable[..., LanguageModelModule] | None = None
    # what the run shows of the model's words answers prompts where there is a chat template, or goes on with them
    chat: Literal["auto", False] = "auto"
    # asks the model what has to be asked ahead of training, on a device ("cuda", …), in a precision (Lightning's name)
    prepare: Callable[[nn.Module, str, str], None] | None = None
    keep: Callable[[Path], None] | None = None  # writes into the run's folder what is wanted of it when it is resumed


class Task(ABC):
    """A way to train. A task is a frozen dataclass of its settings, registered under the name that ``kind`` gives."""

    __pydantic_config__ = FORBID_EXTRA
    rows_a_sample: ClassVar[int] = 1  # that the model is given for one sample of the data
    scores: ClassVar[bool] = False  # whether `data` knows what to do with `TaskInputs.part`; one of yours need not

    @abstractmethod
    def check(self, corpus: CorpusConfig) -> None:
        """Raise `UserError` if this is no data for the task."""

    @abstractmethod
    def data(self, inputs: TaskInputs) -> TaskData:
        """Read the data and make batches of it; `UserError` if files or settings are not what they should be."""

    def fine_tuning_lr(self, width: int) -> float:
        """Adam's peak rate (``lr=auto``) for all weights of a model that exists, of this width."""
        return fine_tuning_lr(width)


@dataclass(frozen=True)
class ChatTask(Task):
    """A task on messages."""

    default_template: ClassVar[str]
    # how a conversation is written: a chat template of the registry, or ``auto``: the file's or the tokenizer's own
    # where there is one, else the default
    template: Annotated[Text, AfterValidator(lambda name: name if name == AUTO else TEMPLATES.check(name))] = AUTO
    template_file: Text | None = None  # for ``hf``: a Jinja file in place of the tokenizer's own template
    # what the template is given beside messages, plain types; generation gives it the same
    template_args: dict[Text, Any] | None = None

    def in_template(self, tokenizer: Tokenizer) -> Tokenizer:
        """The tokenizer with the template, and the tokens that this needs."""
        from slm.chat.template import with_template

        own = tokenizer.chat_template is not None or self.template_file is not None
        kind = ("hf" if own else self.default_template) if self.template == AUTO else self.template
        return with_template(tokenizer, kind, self.template_file, self.template_args)


def said_of_faults(faults: Faults, tokenizer: Tokenizer, inputs: TaskInputs) -> list[str]:
    """What is to be said of the data beside the counts: what was left out, and that the time stands still where the
    chat template writes it, in all sessions of a run."""
    said = [f"data: {line}" for line in faults.lines()]
    if inputs.part is None and tokenizer.template_args:
        said.append(f"the chat template is given {as_typed(tokenizer.template_args)}, in generation too")
    if inputs.part is None and "strftime_now" in (tokenizer.chat_template or ""):
        date = f"{inputs.template_time:%d %b %Y}"
        said.append(f"the chat template writes the date; in this run it is {date} to the end, resumed or not")
    return said


def task_of(values: Any) -> Task:
    """The task that the configuration's `task` describes; raises `UserError` with all problems."""
    if not isinstance(values, Mapping) or not isinstance(values.get("kind"), str):
        raise UserError(f"task.kind is missing; name a task ({', '.join(TASKS.names())})")
    settings = {key: value for key, value in values.items() if key != "kind"}
    task: Task = checked(TASKS.get(values["kind"]), settings, "task")
    return task


def task_for(corpus: CorpusConfig, own: Mapping[str, Any] | None, changes: Mapping[str, Any]) -> Task:
    """The task that a model is scored by on `corpus`: its `own`, of these settings, if that reads such data, else the
    defaults of the one that does; with `changes`. `UserError` for a setting that is wrong, a task that scores none."""
    settings = own if own and _reads(task_of(own), corpus) else {"kind": _READS.get(corpus.kind, "pretrain")}
    task = task_of({**settings, **changes})
    task.check(corpus)
    if not task.scores:
        raise UserError(f"{type(task).__name__} says of no model how good it is (its class has no `scores`)")
    return task


def _reads(task: Task, corpus: CorpusConfig) -> bool:
    try:
        task.check(corpus)
    except UserError:
        return False
    return True
