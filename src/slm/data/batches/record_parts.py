"""Where the records of training and of validation lie: files, folders, data sets of the library `datasets`."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from slm.data.config import CorpusConfig
from slm.data.corpora import RECORD_FILES, find_files
from slm.data.documents.hf_datasets import DatasetSource, saved_splits
from slm.data.documents.source import Source, file_sources
from slm.data.parts import part_of
from slm.errors import UserError, first_few
from slm.notices import notice

T = TypeVar("T")
PartName = Literal["train", "val", "test"]


class RecordParts(NamedTuple):
    """Sources of each part; without any for validation a share of the others is held out."""

    train: list[Source]
    val: list[Source]


def record_parts(corpus: CorpusConfig) -> RecordParts:
    """Those of ``path`` and ``val_path``. In a folder, and in a data set that was saved, files and splits whose names
    say so are of validation: told. `UserError` if something is not there, or could be several things."""
    settings = corpus.settings
    split, val_split = settings.get("split"), settings.get("val_split")
    path, val_path = settings["path"], settings.get("val_path")
    if val_path or split or val_split or not isinstance(path, str):
        held_out = _all(val_path or path, "val", val_split, corpus) if val_path or val_split else []
        return RecordParts(_all(path, "train", split, corpus), held_out)
    if splits := saved_splits(path):
        by_part = _by_name(splits, lambda name: name)
        named = {part: [_data_set(path, name, corpus) for name in names] for part, names in by_part.items()}
        if several := next((names for names in by_part.values() if len(names) > 1), None):
            known = ", ".join(several)
            raise UserError(f"data.path: '{path}' has several splits ({known}); name one: data.split, data.val_split")
        return _told(path, named, lambda source: str(source.split))
    files = find_files(path, RECORD_FILES)
    if not Path(os.path.expanduser(path)).is_dir():
        return RecordParts([*file_sources(files, corpus.reading)], [])
    of_files = _by_name(file_sources(files, corpus.reading), lambda source: source.name)
    return _told(path, of_files, lambda source: source.name)


def _all(path: str | Sequence[str], part: PartName, split: str | None, corpus: CorpusConfig) -> list[Source]:
    """All files that are named, and of each data set the `split` or, without one, that of the part."""
    paths = [path] if isinstance(path, str) else path
    if not paths:
        raise UserError("data.path is an empty list; give a file, a folder, a glob or a list of them")
    if split and (file := next((one for one in paths if Path(os.path.expanduser(one)).is_file()), None)):
        raise UserError(f"data.split={split} is a part of a data set, and '{file}' is a file; leave it out")
    sources: list[Source] = []
    files: list[Path] = []
    for one in paths:
        if name := split or _split_of(saved_splits(one), part):
            sources.append(_data_set(one, name, corpus))
        else:
            files += find_files(one, RECORD_FILES)
    return [*sources, *(file_sources(sorted(set(files)), corpus.reading) if files else [])]


def _split_of(splits: Sequence[str], part: PartName) -> str | None:
    """The first that is named like the part, else the first of all."""
    by_part = _by_name(splits, lambda name: name)
    return next(iter([*by_part[part], *by_part["test" if part == "val" else part], *splits]), None)


def _data_set(path: str, split: str, corpus: CorpusConfig) -> DatasetSource:
    return DatasetSource(path, corpus.settings.get("name"), split, None, False, corpus.reading)


def _by_name(found: Iterable[T], name_of: Callable[[T], str]) -> dict[str, list[T]]:
    """By what the name says; all are of training where none says that it is."""
    parts: dict[str, list[T]] = {"train": [], "val": [], "test": []}
    every = list(found)
    for one in every:
        parts[part_of(Path(name_of(one))) or "train"].append(one)
    return parts if parts["train"] else {"train": every, "val": [], "test": []}


def _told(path: str, parts: dict[str, list[T]], name_of: Callable[[T], str]) -> RecordParts:
    """The parts, the test part for validation where there is no other."""
    val, unused = (parts["val"], parts["test"]) if parts["val"] else (parts["test"], [])
    if val:
        train, held_out, left_out = (first_few([*map(name_of, part)]) for part in (parts["train"], val, unused))
        more = f", not read {left_out}" if unused else ""
        notice(f"data: in '{path}' training is {train}, validation {held_out}{more} (data.val_path says otherwise)")
    return RecordParts(parts["train"], val)  # type: ignore[arg-type]
