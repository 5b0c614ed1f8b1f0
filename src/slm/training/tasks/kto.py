"""KTO: make answers likelier that are good, and unlikelier that are bad, each by itself. Imports no torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from slm.data.config import UNPAIRED, CorpusConfig
from slm.errors import UserError
from slm.registry import register_task
from slm.schema import NonNegativeFloat, PositiveFloat
from slm.training.tasks.preferences.preference_task import PreferenceTask
from slm.training.tasks.task import TaskData, TaskInputs, said_of_faults


@register_task("kto")
@dataclass(frozen=True)
class Kto(PreferenceTask):
    """Settings of tuning on answers with labels (Ethayarajh et al. 2024)."""

    name: ClassVar[str] = "kto"
    beta: PositiveFloat = 0.1
    desirable_weight: NonNegativeFloat = 1.0
    undesirable_weight: NonNegativeFloat = 1.0
    too_long: Literal["drop", "cut_prompt"] = "drop"  # of an answer longer than a window with its prompt

    def check(self, corpus: CorpusConfig) -> None:
        if corpus.kind != UNPAIRED:
            raise UserError(
                f"task=kto needs answers with labels (data=unpaired data.path=…); data.kind is {corpus.kind}"
            )

    def data(self, inputs: TaskInputs) -> TaskData:
        """Answers in the template, each beside one to another prompt, and the module that trains on them."""
        from slm.chat.renderer import ChatRenderer
        from slm.data.batches.datamodule import PairDataModule
        from slm.data.batches.read_records import read_unpaired
        from slm.data.batches.unpaired import UnpairedDataset, fingerprint
        from slm.data.faults import Faults
        from slm.training.tasks.preferences.kto import KTO, KTOModule
        from slm.training.tasks.preferences.module import without_dropout
        from slm.training.tasks.preferences.reference import find_reference, keep_reference

        began = time.perf_counter()
        tokenizer = self.tokenizer_in_template(inputs)
        seq_len = inputs.data.seq_len
        corpus, faults = inputs.data.corpus, Faults(inputs.data.corpus.reading.on_bad)
        renderer = ChatRenderer(tokenizer, inputs.template_time)
        train, val = read_unpaired(corpus, faults, renderer, seq_len + 1, self.too_long)
        parts = {"train": train, "val": val, "all": [*train, *val]}
        read = ("train", "val") if inputs.part is None else (inputs.part,)
        datasets = {name: UnpairedDataset(parts[name], seq_len) for name in read}
        datamodule = PairDataModule(datasets, fingerprint(parts["all"]), **inputs.windows)
        datamodule.noun = "answers"
        if (reference := self.reference_of(inputs, datamodule.fingerprint)) == "none":
            raise UserError("answers with labels are scored beside the model before it was tuned; name it: reference=…")
        counts = {name: len(parts[name]) for name in ("train", "val")}
        said = said_of_faults(faults, tokenizer, inputs)
        if inputs.part is None:
            wanted = sum(answer.is_desirable for answer in train)
            found = f"{len(train):,} training answers ({wanted:,} desirable) and {len(val):,} for validation"
            at_once = f"z0 is a mean over {inputs.batch_size:,} at once (trainer.batch_size)"
            said = [f"data {found}; {at_once}; ready in {time.perf_counter() - began:.1f} s", *said]
            report: dict[str, Any] = counts
        else:
            report = {"answers": len(parts[inputs.part]), "loss_kind": "kto", "reference": reference}
        kto = KTO(self.beta, self.desirable_weight, self.undesirable_weight)
        module = partial(KTOModule, kto=kto)
        return TaskData(
            datamodule,
            tokenizer,
            "\n".join(said),
            {**report, "faults": faults.as_dict()},
            make_module=without_dropout(self.name, module) if inputs.part is None else module,
            prepare=partial(find_reference, datamodule, inputs, counts),
            keep=partial(keep_reference, datasets),
        )
