"""Data sets of the library `datasets` as a source of documents: a row a record."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from slm.data.config import AUTO, PART_NAMES, Reading
from slm.data.documents.fields import column_of
from slm.data.documents.source import PART_SIZE, WHOLE, Record, RecordSource, Span
from slm.data.faults import Faults
from slm.data.parts import InParts, part_of
from slm.errors import UserError
from slm.extras import require
from slm.files.reading import read_json_object

_AT_ONCE = 256
_TEXTS = ("string", "large_string")


@dataclass(frozen=True)
class DatasetSource(RecordSource):
    """Rows of a split; documents are named by the number of their row. See `slm.data.corpora`."""

    path: str
    config: str | None
    split: str | None  # None for all of them, by their names
    revision: str | None
    streaming: bool
    reading: Reading = field(default_factory=Reading)
    form = "datasets"  # of every one

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
        return self.streaming and not is_saved(self.path)

    def records(self, span: Span, faults: Faults, fields: Sequence[str] | None = None) -> Iterator[Record]:
        rows = _loaded(self)
        there = rows.column_names  # None of a stream whose fields are not declared
        if fields is not None and there is not None:
            texts = [name for name, kind in (rows.features or {}).items() if getattr(kind, "dtype", "") in _TEXTS]
            rows = rows.select_columns([column_of(one, there, texts, self.place) for one in fields])
        if span != WHOLE:
            rows = rows.select(range(span.start, span.end))
        number = max(0, span.start)
        for batch in rows.iter(batch_size=_AT_ONCE):
            columns = list(batch)
            for values in zip(*batch.values(), strict=True):
                yield Record(f"#{number}", dict(zip(columns, values, strict=True)))
                number += 1


def splits_in_parts(train: DatasetSource, own: Mapping[str, str | None]) -> list[DatasetSource]:
    """What to train on; `InParts` with the `own` splits of "val" and "test", where there are some: of "auto", and
    beside a split that is named like one of training, the only one that is named like the part."""
    held: dict[str, list[DatasetSource]] = {}
    told: list[str] = []
    names = _names_beside(train) if AUTO in own.values() else []
    for part, split in own.items():
        if split == AUTO:
            like = [name for name in names if part_of(Path(name)) == part]
            if len(like) > 1:
                told.append(f"data: {', '.join(like)} all look like the {PART_NAMES[part]} split; none is taken")
            split = like[0] if len(like) == 1 else None
        if split is not None:
            held[part] = [replace(train, split=split)]
    if held:
        parts = {"train": train.split, **{part: found[0].split for part, found in held.items()}}
        named = ", ".join(f"{PART_NAMES[part]} '{split}'" for part, split in parts.items())
        told.append(f"data: splits of '{train.path}': {named} (data.val_split=null, data.test_split=null: that alone)")
    return InParts([train], held, told) if held or told else [train]


def _names_beside(train: DatasetSource) -> list[str]:
    """Of the other splits, if this one is named like one of training."""
    split = str(train.split)
    if part_of(Path(split.partition("[")[0])) != "train":
        return []
    found = _loaded(replace(train, split=None))
    return [name for name in found if name not in re.findall(r"\w+", split)] if isinstance(found, dict) else []


def is_saved(path: str) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    folder = Path(os.path.expanduser(path))
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def saved_splits(path: str) -> list[str]:
    """Names of the splits of what `save_to_disk` wrote, of one alone "train"; none of anything else."""
    file = Path(os.path.expanduser(path)) / "dataset_dict.json"
    if file.is_file():
        return [str(name) for name in read_json_object(file).get("splits", ())]
    return ["train"] if is_saved(path) else []


@lru_cache(maxsize=16)  # splits of a few data sets
def _loaded(of: DatasetSource) -> Any:
    datasets = require("datasets", "data", "data=datasets")
    path = os.path.expanduser(of.path)
    try:
        if is_saved(path):
            return _saved_rows(datasets, datasets.load_from_disk(path), of.split)
        return datasets.load_dataset(path, of.config, split=of.split, revision=of.revision, streaming=of.streaming)
    except Exception as error:  # the library raises what its parts raise: of the network, of the format, of names
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"data.path: the data set '{of.path}' (split {of.split or 'all'}) cannot be loaded ({said[:300]}); "
            "give a name of the Hugging Face hub, or a folder, and one of its splits"
        ) from error


def _saved_rows(datasets: Any, saved: Any, split: str | None) -> Any:
    """Of what `save_to_disk` wrote the rows that `split` names, cuts and adds. A data set that was saved by itself is
    called "train", beside its own name if it has one."""
    if split is None:
        return saved
    splits = saved if isinstance(saved, dict) else dict.fromkeys(("train", str(saved.split or "train")), saved)
    if split in splits:
        return splits[split]
    ranges = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in splits.items()})
    return datasets.concatenate_datasets([splits[one.splitname].select(range(one.from_, one.to)) for one in ranges])
