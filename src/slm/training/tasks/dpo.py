"""Preference tuning: make the better of two answers likelier than the worse one. Imports no torch."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Lt
from pydantic import AfterValidator, Strict

from slm.data.config import PREFERENCES, CorpusConfig
from slm.errors import UserError, refuse
from slm.registry import PREFERENCE_LOSSES, register_task
from slm.schema import Flag, NonNegativeFloat, PositiveFloat, Text, call_problems
from slm.training.optim.config import fine_tuning_lr
from slm.training.tasks.preferences.preference_task import PreferenceTask
from slm.training.tasks.task import TaskData, TaskInputs, said_of_faults

if TYPE_CHECKING:
    from slm.training.tasks.preferences.losses import PreferenceLoss
    from slm.training.tasks.preferences.preference_task import Reference

_OF_LOSSES = ("beta", "label_smoothing", "per_token", "gamma")


@register_task("dpo")
@dataclass(frozen=True)
class Dpo(PreferenceTask):
    """Settings of preference tuning."""

    name: ClassVar[str] = "dpo"
    loss: Annotated[Text, AfterValidator(PREFERENCE_LOSSES.check)] = "dpo"
    # the loss's own; None for its default, or where it has no such thing
    beta: PositiveFloat | None = None
    label_smoothing: Annotated[float, Strict(), Ge(0), Lt(0.5)] | None = None
    per_token: Flag | None = None
    gamma: NonNegativeFloat | None = None
    settings: dict[str, Any] = field(default_factory=dict)  # of a loss that others registered, what else it takes
    sft_weight: NonNegativeFloat = 0.0  # of the chosen answers' NLL per token beside the loss
    too_long: Literal["drop", "cut_prompt"] = "drop"  # of a pair longer than a window

    def check(self, corpus: CorpusConfig) -> None:
        if corpus.kind != PREFERENCES:
            raise UserError(f"task=dpo needs pairs of answers (data=pairs data.path=…); data.kind is {corpus.kind}")
        refuse(call_problems(PREFERENCE_LOSSES.get(self.loss), self.loss_settings, "task"))

    def fine_tuning_lr(self, width: int) -> float:
        # a loss that learns the chosen answers, as SFT does, has SFT's rate
        supervised = getattr(PREFERENCE_LOSSES.get(self.loss), "supervised", False)
        return fine_tuning_lr(width) if supervised else super().fine_tuning_lr(width)

    @property
    def loss_settings(self) -> dict[str, Any]:
        given = {name: value for name, value in asdict(self).items() if name in _OF_LOSSES and value is not None}
        return {**given, **self.settings}

    def data(self, inputs: TaskInputs) -> TaskData:
        """Pairs in the template, and the module that trains on them."""
        from slm.chat.renderer import ChatRenderer
        from slm.data.batches.datamodule import PairDataModule
        from slm.data.batches.pairs import PairDataset, fingerprint
        from slm.data.batches.read_records import read_pairs
        from slm.data.faults import Faults
        from slm.training.tasks.preferences.losses import Likelihood
        from slm.training.tasks.preferences.module import PreferenceModule, without_dropout
        from slm.training.tasks.preferences.reference import find_reference, keep_reference

        began = time.perf_counter()
        tokenizer = self.tokenizer_in_template(inputs)
        seq_len = inputs.data.seq_len  # the last token of all is a label alone
        corpus, faults = inputs.data.corpus, Faults(inputs.data.corpus.reading.on_bad)
        renderer = ChatRenderer(tokenizer, inputs.template_time, self.template_args)
        train, val = read_pairs(corpus, faults, renderer, seq_len + 1, self.too_long)
        parts = {"train": train, "val": val, "all": [*train, *val]}
        read = ("train", "val") if inputs.part is None else (inputs.part,)
        datasets = {name: PairDataset(parts[name], seq_len) for name in read}
        datamodule = PairDataModule(datasets, fingerprint(parts["all"]), **inputs.windows)
        loss, reference = self._loss_beside(inputs, datamodule.fingerprint)
        counts = {name: len(parts[name]) for name in ("train", "val")}
        said = said_of_faults(faults, tokenizer, inputs)
        if inputs.part is None:
            found = f"{counts['train']:,} training and {counts['val']:,} validation pairs"
            said = [f"data {found}; ready in {time.perf_counter() - began:.1f} s", *said]
            report: dict[str, Any] = counts
        else:
            kind = "likelihood" if isinstance(loss, Likelihood) else self.loss
            report = {"pairs": len(parts[inputs.part]), "loss_kind": kind, "reference": reference}
        module = partial(PreferenceModule, preference=loss, sft_weight=self.sft_weight)
        return TaskData(
            datamodule,
            tokenizer,
            "\n".join(said),
            {**report, "faults": faults.as_dict()},
            make_module=without_dropout(self.name, module) if inputs.part is None else module,
            prepare=partial(find_reference, datamodule, inputs, counts) if reference != "none" else None,
            keep=partial(keep_reference, datasets) if reference != "none" else None,
        )

    def _loss_beside(self, inputs: TaskInputs, data_fingerprint: str) -> tuple[PreferenceLoss, Reference]:
        """The loss, and where it has its reference from; a model is scored by its likelihoods alone where there should
        be one and is none."""
        from slm.training.tasks.preferences.losses import Likelihood

        loss: PreferenceLoss = PREFERENCE_LOSSES.get(self.loss)(**self.loss_settings)
        if not loss.needs_reference:
            return loss, "none"
        reference = self.reference_of(inputs, data_fingerprint)
        return Likelihood() if reference == "none" else loss, reference
