"""A remote file into the data folder: fetched, checked, recorded in its ``manifest.json``; or nothing at all."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le
from filelock import FileLock
from pydantic import ByteSize, Strict

from slm.errors import UserError
from slm.fetch.content import check_content
from slm.fetch.download import Wanted, claimed, fetch, writing
from slm.fetch.http import Access
from slm.files.reading import digest_of
from slm.files.writing import new_file
from slm.progress import byte_progress
from slm.schema import FORBID_EXTRA, Flag, Text

MANIFEST = "manifest.json"

_MAX_BYTES = 200  # of a name; file systems take 255, and a name on its way is longer
_OF_WINDOWS = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class CrawlConfig:
    """What to fetch and where to put it: ``out/category/filename``; `timeout`, `allow_private` are `Access`'s."""

    __pydantic_config__ = FORBID_EXTRA
    url: Text
    category: Literal["sft", "rl", "rag"]
    filename: Text
    out: Text
    max_size: Annotated[ByteSize, Gt(0)]  # bytes, also "500 MB", "2GB"
    timeout: Annotated[float, Strict(), Gt(0), Le(3600)]
    overwrite: Flag  # replace a file of this name
    allow_private: Flag


@dataclass(frozen=True)
class Crawled:
    """The file that was saved, its bytes, its hex digest, and whether it replaced one that held the same."""

    file: Path
    size: int
    sha256: str
    unchanged: bool


def crawl(config: CrawlConfig) -> Crawled:
    """Save ``config.url`` as ``out/category/filename`` and record it in the ``manifest.json`` beside it, an array.
    `UserError`: the place, the server, or what came is refused, or the file cannot be written. Nothing is left then
    but where a connection broke off: the next call for the same url and filename goes on from what came."""
    target = place_of(config.out, config.category, config.filename)
    mend = f"check url, or put the file at {target} yourself"
    access = Access(mend, config.timeout, config.allow_private, to_https=True)
    wanted = Wanted(config.url, access, max_size=int(config.max_size))
    with writing(target):
        _refuse_existing(target, config.overwrite)
        with claimed(target, config.url, wait=False) as part:
            _refuse_existing(target, config.overwrite)  # another process may have been faster
            remote = fetch(wanted, part)
            with byte_progress(f"checking {target.name}") as report:
                check_content(part.file, target.name, remote, report)
            digest = digest_of(part.file)
            saved = Crawled(target, part.size, digest, target.exists() and digest_of(target) == digest)
            # where a redirect led is told without its query, where signatures stand
            final = {} if remote.final_url == remote.url else {"final_url": re.sub(r"[?#].*", "", remote.final_url)}
            time = datetime.now(timezone.utc).isoformat(timespec="seconds")
            found = {"url": remote.url, **final, "time": time, "size": saved.size, "sha256": digest}
            with _recording(target.parent, {"file": target.name, **found}):
                part.put_in_place()
    return saved


def _refuse_existing(target: Path, overwrite: bool) -> None:
    line = next((line for line in _manifest(target.parent) if line.get("file") == target.name), None)
    if overwrite or not target.exists():
        return
    said = f"{MANIFEST} does not know it"
    if line is not None:
        unchanged = line.get("sha256") == digest_of(target)
        said = f"{'un' if unchanged else ''}changed since it came from {line.get('url')} on {line.get('time')}"
        said += f" (sha256 {line['sha256']})" if unchanged else ""
    raise UserError(f"{target} exists already, {said}; set overwrite=true to fetch it anew, or choose another filename")


@contextlib.contextmanager
def _recording(folder: Path, entry: dict[str, Any]) -> Iterator[None]:
    """Put `entry` in place of an older one about the same file, once the block has put the file there. The new manifest
    is on the disk before the block begins, so that a full disk is found out ahead of it."""
    lock = folder / f".{MANIFEST}.lock"
    with FileLock(lock):  # another process that has a line to add waits
        try:
            lines = [*(line for line in _manifest(folder) if line.get("file") != entry["file"]), entry]
            text = ",\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
            with new_file(folder / MANIFEST) as out:
                out.write(f"[\n{text}\n]\n".encode())
                yield
        finally:
            lock.unlink(missing_ok=True)


def _manifest(folder: Path) -> list[dict[str, Any]]:
    file = folder / MANIFEST
    try:
        lines = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error}); mend it or move it away") from None
    if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
        raise UserError(f"{file} is not an array of objects; mend it or move it away")
    return lines


def place_of(out: str, category: str, filename: str) -> Path:
    """``out/category/filename``, which need not be there yet; `UserError` if `filename` is more than a name, or one
    that some system cannot hold, if a link on the way leads out of `out`, or if no plain file lies there."""
    if problem := _problem(filename):
        raise UserError(f"filename {problem}; got {filename!r}; take a plain name such as data.jsonl")
    try:
        root = Path(out).expanduser()
        folder = root / category
        real = folder.resolve()
        is_inside = real == root.resolve() / category
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"out: {out!r} cannot be a folder ({error}); name another") from None
    if not is_inside:
        raise UserError(f"{folder} is a link that leads out of {root}, to {real}; set out to another folder")
    target = folder / filename
    if target.is_symlink():
        raise UserError(f"{target} is a link to {os.readlink(target)}; remove it or choose another filename")
    if target.exists() and not target.is_file():
        raise UserError(f"{target} exists and is not a file; remove it or choose another filename")
    return target


def _problem(name: str) -> str | None:
    bad = sorted(set('<>:"|?*').intersection(name))
    problems = {
        "must be made of printable characters": not name.isprintable() or not name.strip(),
        "must not lead to another folder (category and out choose it)": re.search(r"[/\\]|^\.\.?$", name),
        "must not begin with a dot or a space, nor end with one": re.search(r"^[. ]|[. ]$", name),
        f"must not hold {' '.join(bad)}": bad,
        "is a device on Windows": _OF_WINDOWS.fullmatch(name),
        "is what the record of all fetched files is called": name.casefold() == MANIFEST,
        f"must have at most {_MAX_BYTES} bytes": len(name.encode(errors="replace")) > _MAX_BYTES,
    }
    return next((problem for problem, applies in problems.items() if applies), None)
