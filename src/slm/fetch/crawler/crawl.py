"""A remote file into the data folder: fetched, checked, recorded; or nothing at all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from slm.errors import UserError
from slm.fetch.crawler.config import CrawlConfig
from slm.fetch.crawler.content import check_content
from slm.fetch.crawler.manifest import MANIFEST, Entry, recorded, recording
from slm.fetch.crawler.place import place_of
from slm.fetch.download import Wanted, digest_of, fetch, progress_bar, writing
from slm.fetch.http_get import Access
from slm.fetch.partial_file import PartialFile, Remote, claimed


@dataclass(frozen=True)
class Crawled:
    """What was saved.

    Attributes:
        file: where.
        size: bytes.
        sha256: hex digest.
        unchanged: it replaced a file that held the same.
    """

    file: Path
    size: int
    sha256: str
    unchanged: bool


def crawl(config: CrawlConfig, progress: bool = True) -> Crawled:
    """Save ``config.url`` as ``out/category/filename`` and record it in the ``manifest.json`` beside it.

    Args:
        config: what to fetch and where to put it.
        progress: show a bar on stderr if that is a terminal.

    Raises:
        UserError: the place, the server, or what came is refused, or the file cannot be written. Nothing is left then;
            except where a connection broke off: what came is kept under a hidden name, and the next call for the same
            url and filename goes on from there.
    """
    target = place_of(config.out, config.category, config.filename)
    wanted = Wanted(
        config.url,
        f"check url, or put the file at {target} yourself",
        max_size=int(config.max_size),
        access=Access(timeout=config.timeout, allow_private=config.allow_private, to_https=True),
    )
    with writing(target):
        _refuse_existing(target, config.overwrite)
        with claimed(target, config.url, wait=False) as part:
            _refuse_existing(target, config.overwrite)  # another process may have been faster
            remote = fetch(wanted, part, progress)
            with progress_bar(f"checking {target.name}", progress) as report:
                check_content(part.file, target.name, remote, report)
            entry = _entry(part, remote)
            unchanged = target.exists() and digest_of(target) == entry.sha256
            with recording(target.parent, entry):
                part.put_in_place()
    return Crawled(target, entry.size, entry.sha256, unchanged)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    """Raise `UserError` if `target` is there and may not be replaced, or if the manifest is damaged."""
    line = recorded(target.parent, target.name)
    if overwrite or not target.exists():
        return
    said = f"{MANIFEST} does not know it"
    if line is not None and line.get("sha256") == digest_of(target):
        said = f"unchanged since it came from {line.get('url')} on {line.get('time')} (sha256 {line['sha256']})"
    elif line is not None:
        said = f"changed since it came from {line.get('url')} on {line.get('time')}"
    raise UserError(f"{target} exists already, {said}; set overwrite=true to fetch it anew, or choose another filename")


def _entry(part: PartialFile, remote: Remote) -> Entry:
    redirected = remote.final_url not in ("", remote.url)
    return Entry(
        file=part.target.name,
        url=remote.url,
        final_url=_without_query(remote.final_url) if redirected else None,
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        size=part.size,
        sha256=digest_of(part.file),
    )


def _without_query(url: str) -> str:
    return urlunsplit(urlsplit(url)._replace(query="", fragment=""))
