"""The kinds of corpora: which files, or which data set, each names."""

import glob
import os
import sysconfig
from pathlib import Path
from typing import Literal

from slm.chat.records import Form
from slm.data.documents.compression import COMPRESSED
from slm.data.documents.hf_datasets import DatasetSource
from slm.errors import UserError, did_you_mean
from slm.registry import register_corpus

_LANGUAGES = Path(__file__).with_name("languages.txt").read_text(encoding="utf-8").splitlines()[1:]
LANGUAGES = {name: globs.split() for name, _, globs in (line.partition(": ") for line in _LANGUAGES)}
# what tools put there: other people's code, or none that was written
_INSTALLED = {"site-packages", "dist-packages", "__pycache__"}
_LEFT_OUT = {*_INSTALLED, "node_modules", "vendor", "third_party"}
# of Python's own: tests are repetitive, the rest is not source
_LEFT_OUT_OF_PYTHON = {*_INSTALLED, "test", "tests", "idle_test", "lib-dynload"}
CONVERSATION_FILES = ["*.json", "*.jsonl"]
PAIR_FILES = ["*.jsonl", "*.ndjson", "*.json", "*.parquet"]
IdType = Literal["auto", "uint8", "uint16", "uint32", "int32", "int64"]
_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@register_corpus("text")
@register_corpus("jsonl")
@register_corpus("parquet")
def text(path: str | list[str], patterns: list[str]) -> list[Path]:
    """The files that `path` names, sorted; see `find_files`."""
    paths = [path] if isinstance(path, str) else path
    if not paths:
        raise UserError("data.path is an empty list; give a file, a folder, a glob or a list of them")
    return sorted({file for one in paths for file in find_files(one, patterns)})


@register_corpus("tokens")
def tokens(path: str | list[str], patterns: list[str], val_path: str | list[str] | None, dtype: IdType) -> list[Path]:
    """Token ids that another tool wrote (`slm.data.store.imports`): the files of both parts, training first."""
    paths = [one for given in (path, val_path or []) for one in ([given] if isinstance(given, str) else given)]
    return [file for one in paths for file in find_files(one, patterns)]


@register_corpus("code")
def code(path: str | list[str], languages: list[str] | None = None) -> list[Path]:
    """The source files that `path` names, in these `languages` or all known ones; without hidden or installed ones."""
    for language in languages or ():
        if language not in LANGUAGES:
            known = ", ".join(LANGUAGES)
            raise UserError(
                f"data.languages: '{language}' is not known{did_you_mean(language, LANGUAGES)} (known: {known})"
            )
    patterns = [pattern for language in languages or LANGUAGES for pattern in LANGUAGES[language]]
    given = Path(path).expanduser().parts if isinstance(path, str) else ()
    return [file for file in text(path, patterns) if not _LEFT_OUT.intersection(file.parts[len(given) :])]


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


@register_corpus("datasets")
def datasets(
    path: str, name: str | None = None, split: str = "train", revision: str | None = None, streaming: bool = False
) -> list[DatasetSource]:
    """One split ("train", "train[:10%]") of a data set of the library `datasets`: a name on the Hugging Face hub, or a
    folder that `save_to_disk` wrote or `load_dataset` takes; `name` is its configuration, where it has several. With
    `streaming` it is read while it is downloaded, keeping nothing; in one process, as it has no parts that can be read
    on their own. A folder that `save_to_disk` wrote is never held in memory anyway."""
    return [DatasetSource(path, name, split, revision, streaming)]


@register_corpus("instructions")
def instructions(path: str | list[str], val_path: str | list[str] | None = None, form: Form = "auto") -> list[Path]:
    """Conversations: the files of both parts, training first."""
    return [*text(path, CONVERSATION_FILES), *(text(val_path, CONVERSATION_FILES) if val_path else [])]


@register_corpus("pairs")
def pairs(path: str | list[str], val_path: str | list[str] | None = None) -> list[Path]:
    """Better and worse answers to a prompt: the files of training; those of validation stand apart."""
    return text(path, PAIR_FILES)


def find_files(path: str, patterns: list[str]) -> list[Path]:
    """Regular files at `path`, sorted by name: a file (taken whatever its ending), a folder (searched to the bottom for
    `patterns`; hidden files and folders are passed over, compressed files count as what they hold) or a glob such as
    ``docs/**/*.md``. `UserError` if nothing is there, or nothing in it matches, or a pattern is none."""
    if not path:
        raise UserError("data.path is empty; give a file, a folder (. is this one), a glob or a list of them")
    root = Path(os.path.expanduser(path))  # leaves the home of nobody as it is; Path.expanduser raises RuntimeError
    if root.is_file():
        return [root]
    if root.is_dir():
        if files := _in_folder(root, patterns):
            return files
        raise UserError(
            f"data.path: the folder '{path}' holds no file that matches {', '.join(patterns)}; "
            "add text files or set data.patterns"
        )
    if files := sorted(Path(match) for match in glob.glob(str(root), recursive=True) if Path(match).is_file()):
        return files
    raise UserError(f"data.path: there is no file or folder '{path}'; give a file, a folder or a glob")


def _in_folder(folder: Path, patterns: list[str]) -> list[Path]:
    found: set[Path] = set()
    for pattern in patterns:
        try:
            found.update(file for ending in ("", *COMPRESSED) for file in folder.rglob(pattern and pattern + ending))
        except (NotImplementedError, ValueError) as error:  # pathlib's words for an absolute pattern and an empty one
            raise UserError(
                f"data.patterns: '{pattern}' cannot be looked for in a folder ({error}); give patterns such as *.txt"
            ) from error
    hidden = (any(part.startswith(".") for part in file.relative_to(folder).parts) for file in found)
    return sorted(file for file, is_hidden in zip(found, hidden, strict=True) if not is_hidden and file.is_file())
