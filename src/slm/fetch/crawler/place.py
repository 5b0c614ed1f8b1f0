"""Where a fetched file may lie: in the folder of its category, under a plain name, and nowhere else."""

from __future__ import annotations

import os
import re
from pathlib import Path

from slm.errors import UserError
from slm.fetch.crawler.manifest import MANIFEST

_MAX_BYTES = 200
"""Of a name; file systems take 255, and a name on its way is longer."""
_OF_WINDOWS = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_NOT_IN_NAMES = frozenset('<>:"|?*')


def place_of(out: str, category: str, filename: str) -> Path:
    """``out/category/filename``, which need not be there yet.

    Raises:
        UserError: `filename` is more than a name, or one that some system cannot hold; a link on the way leads out of
            `out`; what lies there is not a plain file.
    """
    if problem := _problem(filename):
        raise UserError(f"filename {problem}; got {filename!r}; take a plain name such as data.jsonl")
    try:
        root = Path(out).expanduser()
        folder = root / category
        is_inside = folder.resolve() == root.resolve() / category
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"out: {out!r} cannot be a folder ({error}); name another") from None
    if not is_inside:
        raise UserError(
            f"{folder} is a link that leads out of {root}, to {folder.resolve()}; set out to another folder"
        )
    target = folder / filename
    if target.is_symlink():
        raise UserError(f"{target} is a link to {os.readlink(target)}; remove it or choose another filename")
    if target.exists() and not target.is_file():
        raise UserError(f"{target} exists and is not a file; remove it or choose another filename")
    return target


def _problem(name: str) -> str | None:
    """Why `name` cannot be taken, or None."""
    if not name.isprintable() or not name.strip():
        return "must be made of printable characters"
    if "/" in name or "\\" in name or name in (".", ".."):
        return "must not lead to another folder (category and out choose it)"
    if name.startswith(".") or name.endswith((".", " ")) or name.startswith(" "):
        return "must not begin with a dot or a space, nor end with one"
    if bad := sorted(_NOT_IN_NAMES.intersection(name)):
        return f"must not hold {' '.join(bad)}"
    if _OF_WINDOWS.fullmatch(name):
        return "is a device on Windows"
    if name.casefold() == MANIFEST:
        return "is what the record of all fetched files is called"
    return f"must have at most {_MAX_BYTES} bytes" if len(name.encode()) > _MAX_BYTES else None
