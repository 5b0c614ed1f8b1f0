"""A token store of a few documents that are given as they are, for tests of what reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slm.data.config import Filters
from slm.data.documents.source import WHOLE, Document, Source, Span
from slm.data.faults import Faults
from slm.data.store.scan import RECORD, record_of, units_of
from slm.data.store.selection import select
from slm.data.store.shard import write_shard
from slm.data.store.token_store import TokenStore, meta_of, write_meta
from slm.files.writing import new_folder
from slm.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Split:
    train: list[Document]
    val: list[Document]


def write_store(folder: Path, split: Split, tokenizer: Tokenizer, documents_a_shard: int = 10**9) -> TokenStore:
    marked = [(name, document) for name in ("train", "val") for document in getattr(split, name)]
    starts = range(0, len(marked), documents_a_shard)
    with new_folder(folder) as partial:
        shards = [
            write_shard(partial, i, marked[start : start + documents_a_shard], tokenizer, lambda n: None)
            for i, start in enumerate(starts)
        ]
        tokenizer.save(partial)
        documents = {"train": len(split.train), "val": len(split.val)}
        write_meta(partial, meta_of(shards, documents, tokenizer))
    return TokenStore.open(folder)


@dataclass(frozen=True)
class Given(Source):
    """A source of documents that are given as they are."""

    documents: list[Document]
    name: str = "given"
    place: str = "given"

    def identity(self) -> list[str]:
        return [self.name]

    def spans(self) -> list[Span]:
        return [WHOLE]

    def read(self, span: Span, faults: Faults) -> Iterator[Document]:
        return iter(self.documents)


def split_documents(documents: list[Document], fraction: float, filters: Filters | None = None) -> Split:
    """As the pipeline does it."""
    records = np.frombuffer(b"".join(map(record_of, documents)), RECORD)
    (chosen,) = select([records], filters or Filters(), fraction).units
    (unit,) = units_of([Given(documents)])
    marked = list(chosen.of(unit, Faults()))
    return Split(*([document for name, document in marked if name == split] for split in ("train", "val")))
