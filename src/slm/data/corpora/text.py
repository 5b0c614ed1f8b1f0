"""Files of text or of records: one file, a folder, or globs. What differs is what counts inside a folder."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from slm.data.documents.compression import COMPRESSED
from slm.errors import UserError
from slm.registry import register_corpus


@register_corpus("text")
@register_corpus("jsonl")
@register_corpus("parquet")
def text(path: str | list[str], patterns: list[str]) -> list[Path]:
    """The files that `path` names, sorted; see `find_files`."""
    paths = [path] if isinstance(path, str) else path
    if not paths:
        raise UserError("data.path is an empty list; give a file, a folder, a glob or a list of them")
    return sorted({file for one in paths for file in find_files(one, patterns)})


def find_files(path: str, patterns: list[str]) -> list[Path]:
    """Regular files at `path`, sorted by name.

    Args:
        path: a file (taken whatever its ending), a folder (searched to the bottom for
            `patterns`; hidden files and folders are passed over) or a glob such as ``docs/**/*.md``.
        patterns: file-name patterns that count inside a folder, e.g. ``["*.txt", "*.md"]``; compressed
            files count as what they hold.

    Raises:
        UserError: nothing is there, or nothing in it matches, or a pattern is none.
    """
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
