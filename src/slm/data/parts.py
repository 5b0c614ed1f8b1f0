"""Which of a corpus is trained on, and which is validation or test because a path, or a name, says so."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from slm.data.config import PART_NAMES
from slm.errors import UserError, first_few

T = TypeVar("T")
Paths = str | list[str]
_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "val"),
    "test": "test",
}
_BETWEEN_WORDS = re.compile(r"[\W\d_]+")
_NO_PART = ""


class InParts(list[T]):
    """What of a corpus is trained on, and beside it what is `held` out whole ("val", "test"); a corpus that gives a
    plain list is divided by ``data.val_fraction``. `told`: how that was known, for people."""

    def __init__(self, train: Iterable[T], held: Mapping[str, Sequence[T]], told: Sequence[str] = ()) -> None:
        super().__init__(train)
        self.held = {part: list(held[part]) for part in PART_NAMES if part in held}
        self.told = list(told)


def files_in_parts(
    find: Callable[[str], list[Path]], path: Paths, own: Mapping[str, Paths | None], by_name: bool = False
) -> list[Path]:
    """The files that `find` gives of `path`, or of each in a list, sorted; `InParts` where some are held out: what
    the `own` paths of "val" and "test" name, and is in no other part, or with `by_name` what `_by_name` tells of."""
    train, named, told = _found(find, path, "data.path", by_name)
    held = {part: _found(find, one, f"data.{part}_path")[0] for part, one in own.items() if one is not None}
    for part, files in named.items():
        own_files = {file.resolve() for file in held.setdefault(part, files)}
        if others := [file for file in files if file.resolve() not in own_files]:
            told.append(f"data: {len(others):,} file(s) named so are left out, since data.{part}_path names others")
    whole = {file.resolve() for files in held.values() for file in files}
    kept = [file for file in train if file.resolve() not in whole]
    if train and not kept:
        raise UserError(
            "data.path: all of its files are held out (data.val_path, data.test_path); name others to train on"
        )
    if len(kept) < len(train):
        told.append(f"data: {len(train) - len(kept):,} file(s) of data.path are held out and not trained on")
    return InParts(kept, held, told) if held or told else kept


def _found(
    find: Callable[[str], list[Path]], path: Paths, setting: str, by_name: bool = False
) -> tuple[list[Path], dict[str, list[Path]], list[str]]:
    """Files to train on, files of other parts by their names, and what there is to tell of it."""
    paths = [path] if isinstance(path, str) else path
    if not paths:
        raise UserError(f"{setting} is an empty list; give a file, a folder, a glob or a list of them")
    train: set[Path] = set()
    held: dict[str, set[Path]] = {}
    told: list[str] = []
    for one in paths:
        try:
            files = find(one)
        except UserError as error:
            raise UserError(str(error).replace("data.path", setting, 1)) from error
        parts = _by_name(files, one, told) if by_name and not Path(os.path.expanduser(one)).is_file() else {}
        train.update(parts.pop("train", files))
        for part, of_part in parts.items():
            held.setdefault(part, set()).update(of_part)
    return sorted(train), {part: sorted(files) for part, files in held.items()}, told


def _by_name(files: Sequence[Path], path: str, told: list[str]) -> dict[str, list[Path]]:
    """The files of each part, if there are some of training and some of another part by their names below the folder
    (or, of a glob, the folder of all), and these are the greater half of the bytes; else nothing. The rest is left out.
    """
    given = Path(os.path.expanduser(path))
    root = given if given.is_dir() else Path(os.path.commonpath([file.parent for file in files]))
    parts: dict[str, list[Path]] = {}
    for file in files:
        parts.setdefault(part_of(file.relative_to(root)), []).append(file)
    rest = parts.pop(_NO_PART, [])
    if not parts.keys() - {"train"}:
        return {}
    if "train" not in parts or 2 * _size(rest) > _size(files):
        some = first_few([str(file.relative_to(root)) for part in ("val", "test") for file in parts.get(part, [])])
        told.append(f"data: '{path}' is read as one text, though names in it look like parts ({some})")
        return {}
    counts = ", ".join(f"{PART_NAMES[part]} {len(parts[part]):,} file(s)" for part in PART_NAMES if part in parts)
    more = f"; left out, of no part: {first_few([file.name for file in rest])}" if rest else ""
    told.append(f"data: parts of '{path}' by name: {counts}{more} (data.split_by_name=false: all is one text)")
    return parts


def part_of(place: Path) -> str:
    """ "train", "val" or "test", by the first folder, or the file's name, of whose words one says so; else ""."""
    for name in place.parts:
        found = {_WORDS[word] for word in _BETWEEN_WORDS.split(name.lower()) if word in _WORDS}
        if len(found) == 1:
            return found.pop()
    return _NO_PART


def _size(files: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in files)
