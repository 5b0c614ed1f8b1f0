"""Predict every token of running text. Imports no torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slm.data.config import CONVERSATIONS, PREFERENCES, UNPAIRED, CorpusConfig
from slm.errors import UserError
from slm.registry import register_task
from slm.training.tasks.task import Task, TaskData, TaskInputs

if TYPE_CHECKING:
    from slm.data.batches.mixture import Store


@register_task("pretrain")
@dataclass(frozen=True)
class Pretrain(Task):
    """It has no settings: what is read and how it is cut is `data`'s matter."""

    scores: ClassVar[bool] = True

    def check(self, corpus: CorpusConfig) -> None:
        if corpus.kind == CONVERSATIONS:
            raise UserError("data=instructions holds conversations, not running text; train on them with task=sft")
        if corpus.kind == PREFERENCES:
            raise UserError("data=pairs holds pairs of answers, not running text; train on them with task=dpo")
        if corpus.kind == UNPAIRED:
            raise UserError("data=unpaired holds answers with labels, not running text; train on them with task=kto")

    def data(self, inputs: TaskInputs) -> TaskData:
        """Windows of a token store, or of several: every token of a split but its first. No context crosses a window's
        border."""
        from slm.data.batches.datamodule import TextDataModule
        from slm.data.store.token_store import WHOLE

        began = time.perf_counter()
        store = _store(inputs)
        datamodule = TextDataModule(store, **inputs.windows)
        if (part := inputs.part) is not None:
            told = ["tokens", "bytes", *(["documents"] if part != WHOLE else [])]  # a cut document is in both splits
            counts = {name: store.meta[part][name] for name in told}
            return TaskData(datamodule, store.tokenizer, "", counts, val_shares=datamodule.shares)
        for split in ("train", "val"):
            datamodule.parts(split)  # refuses one with nothing to predict
        train, val, test = store.meta["train"], store.meta["val"], store.meta.get("test")
        kept = f" ({test['tokens']:,} more for split=test)" if test else ""
        said = (
            f"data {train['tokens']:,} training and {val['tokens']:,} validation tokens{kept}, "
            f"{train['bytes'] / train['tokens']:.2f} bytes a token, vocabulary {store.meta['vocab_size']:,} "
            f"({store.tokenizer.kind}); ready in {time.perf_counter() - began:.1f} s"
        )
        return TaskData(datamodule, store.tokenizer, said, val_shares=datamodule.shares, chat=False)


def _store(inputs: TaskInputs) -> Store:
    from slm.data.batches.mixture import find_data, find_data_with
    from slm.weights.pretrained import check_same_tokens

    corpus = inputs.data.corpus
    if inputs.new_tokenizer is None:
        assert inputs.known is not None
        return find_data_with(corpus, inputs.known, inputs.part)
    store = find_data(corpus, dict(inputs.new_tokenizer))
    if inputs.known is not None:
        check_same_tokens(store.tokenizer, inputs.known)
    return store
