"""Fetch one file: resumed where the connection broke, checked, and in its place only when whole."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from pathlib import Path

from slm.errors import UserError
from slm.fetch.http_get import Access, Answer, ConnectionBrokenError, get
from slm.fetch.partial_file import BrokenOffError, PartialFile, Remote, claimed

_BACKOFF_S = (0.5, 1.0, 2.0)
"""Pauses between tries; so many tries in a row may bring nothing new."""
_MOST_TRIES = 100
"""In one call, however much each of them brings: a server that breaks off after every byte is not worth more."""
_LONGEST_WAIT_S = 60
"""A server that asks for more (Retry-After) is not waited for so long."""
_BLOCK = 1 << 20

Report = Callable[[int, int | None], None]
"""Is told (bytes so far, bytes in all if known)."""


@dataclass(frozen=True)
class Wanted:
    """What to fetch, and what it must be.

    Attributes:
        url: http or https; certificates are verified.
        mend: what the user can do instead, for the error messages.
        sha256: hex digest the content must have, or None if it is not known.
        size: bytes the content must have, or None if it is not known.
        max_size: bytes the content may have, or None if any number will do.
        access: how servers are reached.
    """

    url: str
    mend: str
    sha256: str | None = None
    size: int | None = None
    max_size: int | None = None
    access: Access = field(default_factory=Access)

    def is_at(self, file: Path) -> bool:
        """Whether `file` is there and is what is known of the wanted one."""
        if not file.is_file() or self.size not in (None, file.stat().st_size):
            return False
        return self.sha256 is None or digest_of(file) == self.sha256.lower()

    def check_size(self, found: int | None, more: str = "") -> None:
        """Raise `UserError` if `found` bytes, where known, are not the wanted ones."""
        if found is not None and self.size not in (None, found):
            raise UserError(f"{self.url} has {found} bytes{more}, expected {self.size}; {self.mend}")
        if found is not None and self.max_size is not None and found > self.max_size:
            raise UserError(
                f"{self.url} has {found} bytes{more}, allowed are {self.max_size}; raise max_size if it is meant to be "
                "so large"
            )

    def check(self, file: Path, remote: Remote) -> None:
        """Raise `UserError` unless `file` has the wanted size and checksum and those the server promised."""
        found = file.stat().st_size
        self.check_size(found)
        if remote.size not in (None, found):
            raise UserError(f"{self.url} came as {found} bytes, the server says {remote.size}; {self.mend}")
        if self.sha256 is not None and (digest := digest_of(file)) != self.sha256.lower():
            raise UserError(f"{self.url} has the checksum {digest}, expected {self.sha256}; {self.mend}")
        if remote.md5 is not None and (md5 := _base64(digest_of(file, "md5"))) != remote.md5:
            raise UserError(f"{self.url} came with the MD5 {md5}, the server says {remote.md5}; {self.mend}")


def download(
    url: str, target: Path, *, sha256: str | None, size: int | None = None, mend: str, progress: bool = True
) -> None:
    """Fetch `url` into `target`; nothing is done where `target` has the wanted size and checksum already.

    A broken connection is taken up where it broke, a few times now, and by the next call for the same `url`. Size and
    checksum are also held against what the server says (Content-Length, Content-MD5). Where it says no length and
    closes the connection early (HTTP/1.0), only `size` or `sha256` can tell.

    Args:
        url: http or https; certificates are verified.
        target: the file to make; its folder is made if need be.
        sha256: hex digest the content must have, or None if it is not known.
        size: bytes the content must have, or None if it is not known.
        mend: what the user can do instead, for the error messages.
        progress: show a bar on stderr if that is a terminal.

    Raises:
        UserError: it cannot be reached, is not there, breaks off again and again, is redirected to another scheme or
            without end, has another size or checksum, or cannot be written. `target` is as it was before; only what
            came over a connection that broke is kept for the next call, as it is on Ctrl-C.
    """
    wanted = Wanted(url, mend, sha256, size)
    with writing(target):
        if wanted.is_at(target):  # asked before claiming it: its folder may be one that cannot be written to
            return
        with claimed(target, url) as part:
            if not wanted.is_at(target):  # another process may have fetched it while we waited
                fetch(wanted, part, progress)
                part.put_in_place()


def fetch(wanted: Wanted, part: PartialFile, progress: bool = True) -> Remote:
    """Fill `part` with the wanted bytes, trying again while tries bring something new or are few.

    Args:
        wanted: what to fetch.
        part: it is gone on with where it holds a part of the very same file.
        progress: show a bar on stderr if that is a terminal.

    Returns:
        what the server says of it.

    Raises:
        BrokenOffError: no connection lasts.
        UserError: as `download`.
        OSError: `part` cannot be written.
    """
    try:
        with progress_bar(part.target.name, progress) as report:
            remote = _persist(wanted, part, report)
    except ConnectionBrokenError as broken:
        raise BrokenOffError(
            f"cannot download {wanted.url} ({broken}{part.kept_note}); with no network, {wanted.mend}"
        ) from broken
    wanted.check(part.file, remote)
    return remote


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """An `OSError` of the block is told to the user: `target` could not be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {target} ({error.strerror or error}); make room or name another place"
        ) from error


def _persist(wanted: Wanted, part: PartialFile, report: Report) -> Remote:
    furthest = failures = 0
    for _ in range(_MOST_TRIES):
        try:
            return _transfer(wanted, part, report)
        except ConnectionBrokenError as broken:
            if part.remote() is None:
                part.remove()
            if part.size > furthest:
                furthest, failures = part.size, 0
            if failures == len(_BACKOFF_S) or broken.retry_after > _LONGEST_WAIT_S:
                raise
            time.sleep(max(_BACKOFF_S[failures], broken.retry_after))
            failures += 1
    raise ConnectionBrokenError(f"it broke off {_MOST_TRIES} times")


def _transfer(wanted: Wanted, part: PartialFile, report: Report) -> Remote:
    """One request: for the whole file, or for the rest of `part`."""
    known = part.remote()
    done = part.size if known else 0
    if known and known.size == done:
        return known  # it only lacked the check
    asked = {"Range": f"bytes={done}-", "If-Range": str(known.version)} if known else {}
    with get(wanted.url, asked, wanted.mend, wanted.access) as answer:
        if answer.status == HTTPStatus.OK:
            remote = _remote(wanted.url, answer)
            part.whole_only |= known is not None and known.version == remote.version
            wanted.check_size(remote.size)
            part.begin(remote)
        elif known and answer.status == HTTPStatus.PARTIAL_CONTENT and _goes_on(answer, known, done):
            remote = known
            wanted.check_size(remote.size)
        else:
            part.remove()
            raise ConnectionBrokenError(f"the answer {answer.status} is not what was asked for")
        _append(answer, wanted, part, remote.size if remote.size is not None else wanted.size, report)
    return remote


def _append(answer: Answer, wanted: Wanted, part: PartialFile, whole: int | None, report: Report) -> None:
    """Add the content of `answer` to `part`; `whole` bytes, if that is known, is what the part then has."""
    done = part.size
    with part.file.open("ab") as out:
        for block in answer.blocks():
            out.write(block)
            done += len(block)
            report(done, whole)
            if whole is None or done > whole:
                wanted.check_size(done, " or more")
            if whole is not None and done > whole:
                raise UserError(f"{wanted.url} came as {done} bytes or more, the server says {whole}; {wanted.mend}")
    if whole is not None and done < whole:
        raise ConnectionBrokenError(f"it broke off at {done} of {whole} bytes")


def _goes_on(answer: Answer, remote: Remote, done: int) -> bool:
    """Whether an answer 206 starts at `done` and is of the same file: some servers know Range and not If-Range."""
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if span is None or int(span[1]) != done or _version(answer.headers) not in (None, remote.version):
        return False
    return remote.size is None or span[2] in ("*", str(remote.size))


def _remote(url: str, answer: Answer) -> Remote:
    headers = answer.headers
    md5 = headers.get("Content-MD5", "").strip()
    return Remote(
        url,
        _version(headers),
        answer.length,
        md5 if re.fullmatch(r"[A-Za-z0-9+/]{22}==", md5) else None,
        final_url=answer.url,
        content_type=headers.get_content_type() if headers["Content-Type"] else "",
        content_encoding=headers.get("Content-Encoding", "").strip().lower(),
    )


def _version(headers: Message) -> str | None:
    """RFC 9110 section 13.1.5: a weak ETag (W/"…") does not name the same bytes."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers["Last-Modified"]


def digest_of(file: Path, algorithm: str = "sha256") -> str:
    """Hex digest of what `file` holds, read in blocks."""
    digest = hashlib.new(algorithm, usedforsecurity=algorithm != "md5")
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _base64(hex_digest: str) -> str:
    return base64.b64encode(bytes.fromhex(hex_digest)).decode()


@contextlib.contextmanager
def progress_bar(name: str, wanted: bool) -> Iterator[Report]:
    """A function that is told (bytes so far, bytes in all) and shows them if stderr is a terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda done, whole: None
        return
    from rich import markup, progress
    from rich.console import Console

    columns = (progress.BarColumn(), progress.DownloadColumn(), progress.TransferSpeedColumn())
    console = Console(stderr=True)
    with progress.Progress("{task.description}", *columns, progress.TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(markup.escape(name), total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)
