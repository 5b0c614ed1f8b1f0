"""Preference tuning: make the better of two answers likelier than the worse one. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt
from pydantic import AfterValidator, Strict

from slm.data.config import PREFERENCES, CorpusConfig
from slm.errors import UserError
from slm.registry import PREFERENCE_LOSSES, register_task
from slm.schema import FORBID_EXTRA, Flag, NonNegativeFloat, Text, call_problems
from slm.training.optim.config import preference_lr
from slm.training.tasks.task import AUTO, Evaluation, Preparing, Task, TaskData, TemplateName, said_of_time

if TYPE_CHECKING:
    from torch import Tensor, nn

    from slm.data.batches.datamodule import PairDataModule
    from slm.data.batches.pairs import PairDataset
    from slm.tokenizers.base import Tokenizer
    from slm.training.lit_module import LanguageModelModule
    from slm.training.run_config import RunConfig
    from slm.training.tasks.preferences.pair_loss import PreferenceLoss

REFERENCE_FILE = "reference.safetensors"
"""In the run folder: a resumed run cannot ask weights that it no longer has."""

_OF_LOSSES = ("beta", "label_smoothing", "per_token", "gamma")


def _loss(name: str) -> str:
    PREFERENCE_LOSSES.check(name)
    return name


@register_task("dpo")
@dataclass(frozen=True)
class Dpo(Task):
    """Settings of preference tuning.

    Attributes:
        loss: of the registry: ``dpo`` and ``ipo`` with a reference, ``orpo`` and ``simpo`` without.
        beta, label_smoothing, per_token, gamma: the loss's own; None for its default, or where it has no such thing.
        settings: of a loss that others registered, what else it takes.
        sft_weight: of the chosen answers' NLL per token beside the loss.
        template: how a conversation is written: a chat template of the registry, or ``auto``: the tokenizer's own where
            it has one, else ``alpaca``.
        template_file: for ``hf``: a Jinja file in place of the tokenizer's own template.
        too_long: what becomes of a pair longer than a window: ``drop`` it, or ``cut_prompt``, at its beginning.
    """

    __pydantic_config__ = FORBID_EXTRA
    rows_a_sample: ClassVar[int] = 2
    loss: Annotated[Text, AfterValidator(_loss)] = "dpo"
    beta: Annotated[float, Strict(), Gt(0)] | None = None
    label_smoothing: Annotated[float, Strict(), Ge(0), Lt(0.5)] | None = None
    per_token: Flag | None = None
    gamma: NonNegativeFloat | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    sft_weight: NonNegativeFloat = 0.0
    template: TemplateName = AUTO
    template_file: Text | None = None
    too_long: Literal["drop", "cut_prompt"] = "drop"

    def check(self, corpus: CorpusConfig) -> None:
        """Pairs of answers alone."""
        if corpus.kind != PREFERENCES:
            raise UserError(f"task=dpo needs pairs of answers (data=pairs data.path=…); data.kind is {corpus.kind}")
        if problems := call_problems(PREFERENCE_LOSSES.get(self.loss), self.loss_settings, "task"):
            raise UserError("\n".join(problems))

    def fine_tuning_lr(self, width: int) -> float:
        """See `Task`; a loss that learns the chosen answers, as SFT does, has SFT's rate."""
        supervised = getattr(PREFERENCE_LOSSES.get(self.loss), "supervised", False)
        return super().fine_tuning_lr(width) if supervised else preference_lr(width)

    @property
    def loss_settings(self) -> dict[str, Any]:
        """What the loss is made with."""
        given = {name: value for name, value in asdict(self).items() if name in _OF_LOSSES and value is not None}
        return {**given, **self.settings}

    def data(self, run: RunConfig) -> TaskData:
        """Pairs in the template, and the module that trains on them."""
        from slm.chat.renderer import ChatRenderer
        from slm.data.batches.datamodule import PairDataModule
        from slm.data.batches.pairs import PairDataset, fingerprint
        from slm.data.batches.read_records import read_pairs

        began = time.perf_counter()
        tokenizer = self._tokenizer(run)
        seq_len = run.data.seq_len  # the last token of all is a label alone
        splits = read_pairs(run.data.corpus, ChatRenderer(tokenizer, run.template_time), seq_len + 1, self.too_long)
        datasets = {name: PairDataset(part, seq_len) for name, part in (("train", splits.train), ("val", splits.val))}
        settings = (seq_len, run.trainer.windows_at_once, run.data.num_workers, run.seed)
        datamodule = PairDataModule(datasets, fingerprint([*splits.train, *splits.val]), *settings)
        loss = self._loss_made()
        said = f"data {len(splits.train):,} training and {len(splits.val):,} validation pairs"
        lines = [f"{said}; ready in {time.perf_counter() - began:.1f} s"]
        lines += [*(f"data: {line}" for line in splits.faults.lines()), *said_of_time(tokenizer, run.template_time)]
        return TaskData(
            datamodule,
            tokenizer,
            said="\n".join(lines),
            report={"train": len(splits.train), "val": len(splits.val), "faults": splits.faults.as_dict()},
            make_module=partial(_without_dropout, preference=loss, sft_weight=self.sft_weight),
            prepare=partial(_ask_reference, datamodule, run) if loss.needs_reference else None,
            keep=partial(_keep_reference, datamodule) if loss.needs_reference else None,
        )

    def evaluation(self, asked: Evaluation) -> TaskData:
        """The pairs of one part: beside the reference that the run kept of them, or another, or none."""
        from slm.chat.renderer import ChatRenderer
        from slm.data.batches.datamodule import PairDataModule
        from slm.data.batches.pairs import PairDataset, fingerprint
        from slm.data.batches.read_records import read_pairs
        from slm.training.run.folder import template_time
        from slm.training.tasks.preferences.likelihood import Likelihood
        from slm.training.tasks.preferences.module import PreferenceModule

        seq_len = asked.data.seq_len
        renderer = ChatRenderer(asked.tokenizer, template_time(asked.run) if asked.run else None)
        splits = read_pairs(asked.data.corpus, renderer, seq_len + 1, self.too_long)
        both = {"train": PairDataset(splits.train, seq_len), "val": PairDataset(splits.val, seq_len)}
        pairs = {"train": splits.train, "val": splits.val, "all": [*splits.train, *splits.val]}[asked.part]
        dataset = PairDataset(pairs, seq_len)
        of_both = fingerprint([*splits.train, *splits.val])
        datamodule = PairDataModule({asked.part: dataset}, of_both, seq_len, asked.batch_size, eval_split=asked.part)
        loss, reference, prepare = self._loss_made(), "none", None
        if loss.needs_reference and asked.reference is not None:
            reference, prepare = "given", partial(_ask_given, datamodule, asked)
        elif loss.needs_reference and _kept_of(asked.run, of_both):
            reference, prepare = "kept by the run", partial(_recall_kept, dataset, both, asked)
        elif loss.needs_reference:
            loss = Likelihood()
        return TaskData(
            datamodule,
            asked.tokenizer,
            said="\n".join(f"data: {line}" for line in splits.faults.lines()),
            report={
                "pairs": len(dataset),
                "loss_kind": self.loss if not isinstance(loss, Likelihood) else "likelihood",
                "reference": reference,
                "faults": splits.faults.as_dict(),
            },
            make_module=partial(PreferenceModule, preference=loss, sft_weight=self.sft_weight),
            prepare=prepare,
        )

    def _loss_made(self) -> PreferenceLoss:
        loss: PreferenceLoss = PREFERENCE_LOSSES.get(self.loss)(**self.loss_settings)
        return loss

    def _tokenizer(self, run: RunConfig) -> Tokenizer:
        from slm.chat.template import with_template
        from slm.training.run_config import PRETRAINED

        if run.start is None:
            raise UserError("task=dpo tunes weights that exist; name them (model.weights=…)")
        if run.tokenizer["kind"] != PRETRAINED:
            raise UserError("task=dpo takes the tokenizer of model.weights; leave tokenizer out")
        tokenizer = run.start.tokenizer
        own = tokenizer.chat_template is not None or self.template_file is not None
        kind = ("hf" if own else "alpaca") if self.template == AUTO else self.template
        return with_template(tokenizer, kind, self.template_file)


def _without_dropout(model: nn.Module, **settings: Any) -> LanguageModelModule:
    from slm.notices import notice
    from slm.training.tasks.preferences.dropout import switch_off_dropout
    from slm.training.tasks.preferences.module import PreferenceModule

    if switch_off_dropout(model):
        notice("task=dpo: dropout is off; answers are compared with each other, and with a reference that has none")
    return PreferenceModule(model, **settings)


def _ask_reference(data: PairDataModule, run: RunConfig, model: nn.Module, how: Preparing) -> None:
    """The reference is `model` as training begins; a run that is resumed has its answers."""
    from slm.notices import notice
    from slm.training.tasks.preferences.reference import describe_reference, load_reference, reference_of

    if how.resumed_from is not None:
        reference = load_reference(how.resumed_from / REFERENCE_FILE, data.datasets)
    else:
        cache = Path(run.data.corpus.cache_dir).expanduser() / "references"
        at_once = run.trainer.windows_at_once
        reference = reference_of(model, data.datasets, data.fingerprint, cache, how.device, how.precision, at_once)
        notice(f"before training, validation: {describe_reference(reference['val'], data.datasets['val'])}")
    for name, dataset in data.datasets.items():
        dataset.reference = reference[name]


def _kept_of(run: Path | None, data_fingerprint: str) -> bool:
    """The run keeps what the reference thought of these very pairs."""
    from slm.training.run.folder import read_record

    return run is not None and read_record(run).get("data_fingerprint") == data_fingerprint


def _recall_kept(
    dataset: PairDataset, both: Mapping[str, PairDataset], asked: Evaluation, model: nn.Module, how: Preparing
) -> None:
    import torch

    from slm.training.tasks.preferences.reference import load_reference

    assert asked.run is not None
    kept = load_reference(asked.run / REFERENCE_FILE, both)
    dataset.reference = kept[asked.part] if asked.part in kept else torch.cat([kept["train"], kept["val"]])


def _ask_given(data: PairDataModule, asked: Evaluation, model: nn.Module, how: Preparing) -> None:
    from slm.training.tasks.preferences.reference import reference_of

    assert asked.reference is not None
    cache = Path(asked.data.corpus.cache_dir).expanduser() / "references"
    key = f"{data.fingerprint} {asked.part}"
    found = reference_of(asked.reference, data.datasets, key, cache, how.device, how.precision, asked.batch_size)
    data.datasets[asked.part].reference = found[asked.part]


def _keep_reference(data: PairDataModule, run: Path) -> None:
    from slm.training.tasks.preferences.reference import write_reference

    reference: dict[str, Tensor] = {name: d.reference for name, d in data.datasets.items() if d.reference is not None}
    if not (run / REFERENCE_FILE).is_file():
        write_reference(run / REFERENCE_FILE, reference)
