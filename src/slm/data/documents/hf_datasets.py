"""Data sets of the library `datasets` as a source of documents: a row a record."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from slm.data.config import Reading
from slm.data.documents.source import PART_SIZE, WHOLE, Record, RecordSource, Span
from slm.data.faults import Faults
from slm.errors import UserError
from slm.extras import require
from slm.files.reading import read_json_object

_AT_ONCE = 256


@dataclass(frozen=True)
class DatasetSource(RecordSource):
    """Rows of a split; documents are named by the number of their row. See `slm.data.corpora`."""

    path: str
    config: str | None
    split: str
    revision: str | None
    streaming: bool
    reading: Reading = field(default_factory=Reading)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{Path(self.path).name}/{self.split}"

    @property
    def place(self) -> str:  # type: ignore[override]
        return f"{self.path} ({self.split})"

    def source(self, reading: Reading) -> DatasetSource:
        return replace(self, reading=reading)

    def identity(self) -> Any:
        fingerprint = None if self._streams else _loaded(self)._fingerprint
        return ["datasets", self.path, self.config, self.split, self.revision, self.streaming, fingerprint]

    def spans(self) -> list[Span]:
        """Rows, as many as hold about `PART_SIZE` bytes; a stream has one span."""
        if self._streams:
            return [WHOLE]
        rows, size = len(_loaded(self)), _loaded(self).data.nbytes
        step = max(1, PART_SIZE * rows // max(1, size))
        return [Span(start, min(start + step, rows)) for start in range(0, max(1, rows), step)]

    def where(self, place: str) -> str:
        return f"row {place} of '{self.place}'"

    @property
    def _streams(self) -> bool:
        return self.streaming and not _is_saved(self.path)

    def records(self, span: Span, faults: Faults, fields: Sequence[str] | None = None) -> Iterator[Record]:
        rows = _loaded(self)
        there = rows.column_names  # None of a stream whose fields are not declared
        for one in fields or ():
            if there is not None and one not in there:
                raise UserError(f"data.field: '{self.place}' has no column '{one}'; it has: {', '.join(there)}")
        if fields is not None and there is not None:
            rows = rows.select_columns(list(fields))
        if span != WHOLE:
            rows = rows.select(range(span.start, span.end))
        number = max(0, span.start)
        for batch in rows.iter(batch_size=_AT_ONCE):
            columns = list(batch)
            for values in zip(*batch.values(), strict=True):
                yield Record(f"#{number}", dict(zip(columns, values, strict=True)))
                number += 1


def _is_saved(path: str) -> bool:
    folder = Path(os.path.expanduser(path))
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def saved_splits(path: str) -> list[str]:
    """Names of the splits of what `save_to_disk` wrote, of one alone "train"; none of anything else."""
    file = Path(os.path.expanduser(path)) / "dataset_dict.json"
    if file.is_file():
        return [str(name) for name in read_json_object(file).get("splits", ())]
    return ["train"] if _is_saved(path) else []


@lru_cache(maxsize=4)
def _loaded(of: DatasetSource) -> Any:
    datasets = require("datasets", "data", "data=datasets")
    path = os.path.expanduser(of.path)
    try:
        if _is_saved(path):
            found = datasets.load_from_disk(path)
            return found[of.split] if isinstance(found, dict) else found
        return datasets.load_dataset(path, of.config, split=of.split, revision=of.revision, streaming=of.streaming)
    except Exception as error:  # the library raises what its parts raise: of the network, of the format, of names
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"data.path: the data set '{of.path}' (split {of.split}) cannot be loaded ({said[:300]}); "
            "give a name of the Hugging Face hub, or a folder, and one of its splits"
        ) from error
