"""Predict every token of running text. Imports no torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slm.data.config import CONVERSATIONS, PREFERENCES, CorpusConfig
from slm.errors import UserError
from slm.registry import register_task
from slm.schema import FORBID_EXTRA
from slm.training.tasks.task import Evaluation, Task, TaskData

if TYPE_CHECKING:
    from slm.data.batches.mixture import Store
    from slm.training.run_config import RunConfig


@register_task("pretrain")
@dataclass(frozen=True)
class Pretrain(Task):
    """It has no settings: what is read and how it is cut is `data`'s matter."""

    __pydantic_config__ = FORBID_EXTRA

    def check(self, corpus: CorpusConfig) -> None:
        """Any data but conversations and pairs of answers."""
        if corpus.kind == CONVERSATIONS:
            raise UserError("data=instructions holds conversations, not running text; train on them with task=sft")
        if corpus.kind == PREFERENCES:
            raise UserError("data=pairs holds pairs of answers, not running text; train on them with task=dpo")

    def data(self, run: RunConfig) -> TaskData:
        """Windows of a token store, or of several."""
        from slm.data.batches.datamodule import TextDataModule
        from slm.data.store.token_store import SPLITS

        began = time.perf_counter()
        store = _store(run)
        datamodule = TextDataModule(
            store, run.data.seq_len, run.trainer.windows_at_once, run.data.num_workers, run.seed
        )
        for split in SPLITS:
            datamodule.parts(split)  # refuses one with nothing to predict
        said = _said(store, time.perf_counter() - began)
        return TaskData(datamodule, store.tokenizer, said, val_shares=datamodule.shares, chat=False)

    def evaluation(self, asked: Evaluation) -> TaskData:
        """Every token of a split, or of both, but its first, in windows; no context crosses a window's border."""
        from slm.data.batches.datamodule import TextDataModule
        from slm.data.batches.mixture import find_data_with
        from slm.data.store.token_store import WHOLE

        store = find_data_with(asked.data.corpus, asked.tokenizer)
        datamodule = TextDataModule(store, asked.data.seq_len, asked.batch_size, eval_split=asked.part)
        told = ["tokens", "bytes", *(["documents"] if asked.part != WHOLE else [])]  # a cut document is in both splits
        counts = {name: store.meta[asked.part][name] for name in told}
        return TaskData(datamodule, store.tokenizer, "", counts, val_shares=datamodule.shares)


def _store(run: RunConfig) -> Store:
    from slm.data.batches.mixture import find_data, find_data_with
    from slm.training.run_config import PRETRAINED
    from slm.weights.adapt import check_same_tokens

    if run.start is None:
        return find_data(run.data.corpus, run.tokenizer)
    if run.tokenizer["kind"] == PRETRAINED:
        return find_data_with(run.data.corpus, run.start.tokenizer)
    store = find_data(run.data.corpus, run.tokenizer)
    check_same_tokens(store.tokenizer, run.start.tokenizer)
    return store


def _said(store: Store, seconds: float) -> str:
    meta = store.meta
    return (
        f"data {meta['train']['tokens']:,} training and {meta['val']['tokens']:,} validation tokens, "
        f"{meta['train']['bytes'] / meta['train']['tokens']:.2f} bytes a token, vocabulary {meta['vocab_size']:,} "
        f"({store.tokenizer.kind}); ready in {seconds:.1f} s"
    )
