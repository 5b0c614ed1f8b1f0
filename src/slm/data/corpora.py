"""The kinds of corpora: which files, or which data set, each names."""

import glob
import os
import re
import sysconfig
from collections import Counter
from fnmatch import fnmatchcase, translate
from pathlib import Path, PurePath
from typing import Literal

from slm.chat.conversation_forms import Column, Form
from slm.chat.preference_forms import LabelledColumn, PairColumn
from slm.data.documents.compression import COMPRESSED
from slm.data.documents.hf_datasets import DatasetSource, is_saved, splits_in_parts
from slm.data.parts import Paths, files_in_parts
from slm.errors import UserError, did_you_mean, first_few
from slm.notices import notice_once
from slm.registry import register_corpus

_LANGUAGES = Path(__file__).with_name("languages.txt").read_text(encoding="utf-8").splitlines()[1:]
LANGUAGES = {name: globs.split() for name, _, globs in (line.partition(": ") for line in _LANGUAGES)}
# what tools put there: other people's code, or none that was written
_INSTALLED = {"site-packages", "dist-packages", "__pycache__"}
_LEFT_OUT = {*_INSTALLED, "node_modules", "vendor", "third_party"}
# of Python's own: tests are repetitive, the rest is not source
_LEFT_OUT_OF_PYTHON = {*_INSTALLED, "test", "tests", "idle_test", "lib-dynload"}
_NO_ENDING = "without ending"
RECORD_FILES = ["*.jsonl", "*.ndjson", "*.json", "*.parquet"]
IdType = Literal["auto", "uint8", "uint16", "uint32", "int32", "int64"]
_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@register_corpus("text")
@register_corpus("jsonl")
@register_corpus("parquet")
@register_corpus("csv")
def text(
    path: Paths,
    patterns: list[str],
    val_path: Paths | None = None,
    test_path: Paths | None = None,
    split_by_name: bool = False,
) -> list[Path]:
    """The files that `path` names, sorted; see `find_files`. Those of validation and of a test part are what their own
    paths name or, with `split_by_name`, those of a folder or glob whose names say so; see `slm.data.parts`."""
    own = {"val": val_path, "test": test_path}
    return files_in_parts(lambda one: find_files(one, patterns, is_told=True), path, own, split_by_name)


@register_corpus("tokens")
def tokens(path: str | list[str], patterns: list[str], val_path: str | list[str] | None, dtype: IdType) -> list[Path]:
    """Token ids that another tool wrote (`slm.data.store.imports`): the files of both parts, training first."""
    paths = [one for given in (path, val_path or []) for one in ([given] if isinstance(given, str) else given)]
    return [file for one in paths for file in find_files(one, patterns)]


@register_corpus("code")
def code(
    path: Paths, languages: list[str] | None = None, val_path: Paths | None = None, test_path: Paths | None = None
) -> list[Path]:
    """The source files that `path` names, in these `languages` or all known ones; without hidden or installed ones.
    Those of validation and of a test part are what their own paths name."""
    for language in languages or ():
        if language not in LANGUAGES:
            known = ", ".join(LANGUAGES)
            raise UserError(
                f"data.languages: '{language}' is not known{did_you_mean(language, LANGUAGES)} (known: {known})"
            )
    patterns = [pattern for language in languages or LANGUAGES for pattern in LANGUAGES[language]]

    def written(one: str) -> list[Path]:
        given = Path(one).expanduser().parts
        return [file for file in find_files(one, patterns) if not _LEFT_OUT.intersection(file.parts[len(given) :])]

    return files_in_parts(written, path, {"val": val_path, "test": test_path})


@register_corpus("python_stdlib")
def python_stdlib() -> list[Path]:
    """All ``.py`` files of this interpreter's standard library, tests left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = find_files(str(root), patterns=["*.py"])
    return [file for file in files if not _LEFT_OUT_OF_PYTHON.intersection(file.relative_to(root).parts)]


@register_corpus("shakespeare_char")
def shakespeare_char(path: str | None, url: str, download_dir: str) -> list[Path]:
    """Tiny Shakespeare, the 1.1 MB of plays that small character models are compared on: the file at `path`; without
    one, `download_dir`'s, fetched from `url` unless the known text is there already."""
    if path is not None:
        return find_files(path, patterns=["*.txt"])
    from slm.fetch.download import download  # an HTTP library takes 0.2 s to import

    file = Path(download_dir).expanduser() / "tinyshakespeare.txt"
    download(url, file, sha256=_SHAKESPEARE_SHA256, mend="set data.path to a copy of tinyshakespeare.txt")
    return [file]


@register_corpus("babylm")
def babylm(path: str, size: Literal["10M", "100M"], patterns: list[str]) -> list[Path] | list[DatasetSource]:
    """The texts of the BabyLM challenge: of its folder those of ``train_10M`` or ``train_100M``, with ``dev`` and
    ``test`` as validation and test parts where they are there; of another folder, as its data sets on a hub come (of
    Parquet or JSON Lines files), all, in parts by their names; of what is no folder the data set of that name
    ("owner/name") on the hub."""
    root = Path(os.path.expanduser(path))
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path) and not root.parent.is_dir():
        return datasets(path, val_split="auto", test_split="auto")
    train = root / f"train_{size}"
    others = sorted(place.name for place in root.glob("train_*") if place.is_dir())
    if not train.is_dir():
        if others:
            raise UserError(f"data.path: '{path}' holds {', '.join(others)}, not {train.name}; set data.size")
        return text(path, patterns, split_by_name=True)
    beside = {name: str(root / name) if (root / name).is_dir() else None for name in ("dev", "test")}
    return text(str(train), patterns, val_path=beside["dev"], test_path=beside["test"])


@register_corpus("datasets")
def datasets(
    path: str,
    name: str | None = None,
    split: str = "train",
    revision: str | None = None,
    streaming: bool = False,
    val_split: str | None = None,
    test_split: str | None = None,
) -> list[DatasetSource]:
    """Splits ("train", "train[:10%]") of a data set of the library `datasets`: a name on the Hugging Face hub, or a
    folder that `save_to_disk` wrote or `load_dataset` takes; `name` is its configuration, where it has several. With
    "auto" those of validation and of a test part are, beside the training split, the ones that are named so. With
    `streaming` it is read while it is downloaded, keeping nothing; in one process, as it has no parts that can be read
    on their own. A folder that `save_to_disk` wrote is never held in memory anyway."""
    train = DatasetSource(path, name, split, revision, streaming)
    return splits_in_parts(train, {"val": val_split, "test": test_split})


@register_corpus("instructions")
def instructions(
    path: str | list[str],
    val_path: str | list[str] | None = None,
    form: Form = "auto",
    columns: dict[Column, str] | None = None,
    roles: dict[str, str] | None = None,
    name: str | None = None,
    split: str | None = None,
    val_split: str | None = None,
) -> None:
    """Conversations. Records are read by `slm.data.batches.read_records`, and hold no documents."""


@register_corpus("pairs")
def pairs(
    path: str | list[str],
    val_path: str | list[str] | None = None,
    columns: dict[PairColumn, str] | None = None,
    roles: dict[str, str] | None = None,
    name: str | None = None,
    split: str | None = None,
    val_split: str | None = None,
) -> None:
    """Better and worse answers to a prompt; read as `instructions` are."""


@register_corpus("unpaired")
def unpaired(
    path: str | list[str],
    val_path: str | list[str] | None = None,
    columns: dict[LabelledColumn, str] | None = None,
    roles: dict[str, str] | None = None,
    name: str | None = None,
    split: str | None = None,
    val_split: str | None = None,
) -> None:
    """Answers that are good or bad, each by itself; read as `instructions` are."""


def find_files(path: str, patterns: list[str], is_told: bool = False) -> list[Path]:
    """Regular files at `path`, sorted by name: a file (taken whatever its ending), a folder (searched to the bottom for
    `patterns`, in any case; hidden files and linked folders are passed over, compressed files count as what they hold)
    or a glob such as ``docs/**/*.md``. What is taken of a folder, and what is not, `is_told` by endings. `UserError` if
    nothing is there, or nothing in it matches, or a pattern is none."""
    if not path:
        raise UserError("data.path is empty; give a file, a folder (. is this one), a glob or a list of them")
    root = Path(os.path.expanduser(path))  # leaves the home of nobody as it is; Path.expanduser raises RuntimeError
    if root.is_file():
        return [root]
    if is_saved(path):
        raise UserError(f"data.path: '{path}' is a data set that datasets saved; read it by data=datasets")
    if root.is_dir():
        found, others = _in_folder(root, _checked(patterns))
        left_out = _by_number(others)
        if not found:
            held = f" (it holds {left_out})" if left_out else ""
            raise UserError(
                f"data.path: the folder '{path}' holds no file that matches {', '.join(patterns)}{held}; "
                "add text files or set data.patterns"
            )
        if is_told:
            passed_over = f"; passed over {left_out}" if left_out else ""
            taken = _by_number(Counter(file.suffix.lower() or _NO_ENDING for file in found))
            notice_once(f"data: of the folder '{path}' {taken}{passed_over}")
        return found
    if files := sorted(Path(match) for match in glob.glob(str(root), recursive=True) if Path(match).is_file()):
        return files
    raise UserError(f"data.path: there is no file or folder '{path}'; give a file, a folder or a glob")


def _checked(patterns: list[str]) -> list[list[str]]:
    """Their parts, lower-case."""
    for pattern in patterns:
        if not pattern or PurePath(pattern).is_absolute():
            raise UserError(f"data.patterns: '{pattern}' cannot be looked for in a folder; give patterns such as *.txt")
    return [pattern.lower().split("/") for pattern in patterns]


def _in_folder(folder: Path, patterns: list[list[str]]) -> tuple[list[Path], Counter[str]]:
    """The files that match, sorted, and how many of each ending, and of what is not looked at, do not."""
    by_name = re.compile("|".join(translate(pattern[0]) for pattern in patterns if len(pattern) == 1) or "(?!)")
    by_place = [pattern for pattern in patterns if len(pattern) > 1]
    found: list[Path] = []
    others: Counter[str] = Counter()
    for place, folders, files in os.walk(folder):
        others["hidden"] += sum(name.startswith(".") for name in (*folders, *files))
        folders[:] = [name for name in folders if not name.startswith(".")]
        others["linked folders"] += sum(os.path.islink(os.path.join(place, name)) for name in folders)
        above = os.path.relpath(place, folder).lower().split(os.sep)
        for name in (one for one in files if not one.startswith(".")):
            stem, ending = os.path.splitext(name.lower())
            names = (stem, name.lower()) if ending in COMPRESSED else (name.lower(),)
            if (
                any(by_name.match(one) or any(_matches([*above, one], longer) for longer in by_place) for one in names)
                and (file := Path(place, name)).is_file()
            ):
                found.append(file)
            else:
                others[ending or _NO_ENDING] += 1
    return sorted(found), others


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """As `Path.rglob` has it: the pattern is one of the end of a path, ``**`` any folders."""
    if not pattern:
        return True
    if pattern[-1] == "**":
        return any(_matches(parts[:end], pattern[:-1]) for end in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[-1], pattern[-1]) and _matches(parts[:-1], pattern[:-1])


def _by_number(counts: Counter[str]) -> str:
    return first_few([f"{count:,} {name}" for name, count in counts.most_common() if count], most=8)
