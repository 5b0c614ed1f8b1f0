"""Fetch one file: resumed where the connection broke, checked, and in its place only when whole.

On its way the file lies beside its place under a hidden name, with a note of what it is a part of:

.NAME.part         the bytes so far
.NAME.part.json    the address, and what the server said of the whole file
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from email.message import Message
from http import HTTPStatus
from pathlib import Path

from filelock import FileLock

from slm.errors import UserError
from slm.http_get import ConnectionBrokenError, blocks, get

_BACKOFF_S = (0.5, 1.0, 2.0)
"""Pauses between tries; so many tries in a row may bring nothing new."""
_BLOCK = 1 << 20


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
    wanted = _Wanted(url, size, sha256, mend)
    part = _Part(target, url)
    lock = target.with_name(f".{target.name}.lock")
    try:
        if wanted.is_at(target):  # asked before locking: its folder may be one that cannot be written to
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):  # two processes must not write to one part; the second finds the first one's file
            try:
                if not wanted.is_at(target):
                    _fetch(wanted, part, progress)
            except (UserError, OSError):
                part.remove()
                raise
            finally:
                lock.unlink(missing_ok=True)
    except ConnectionBrokenError as broken:
        kept = f"; {part.size} bytes are kept and the next try goes on from there" if part.size else ""
        raise UserError(f"cannot download {url} ({broken}{kept}); with no network, {mend}") from broken
    except OSError as error:
        raise UserError(
            f"cannot write {target} ({error.strerror or error}); make room or name another place"
        ) from error


@dataclass(frozen=True)
class _Remote:
    """What a server says of a whole file.

    Attributes:
        version: what names these very bytes (a strong ETag, else Last-Modified), to ask for the rest of them.
        md5: base64, as Content-MD5 has it.
    """

    url: str
    version: str | None
    size: int | None
    md5: str | None


@dataclass(frozen=True)
class _Wanted:
    """What the caller asks for; see `download`."""

    url: str
    size: int | None
    sha256: str | None
    mend: str

    def is_at(self, file: Path) -> bool:
        """Whether `file` is there and is what is known of the wanted one."""
        if not file.is_file() or self.size not in (None, file.stat().st_size):
            return False
        return self.sha256 is None or _digest(file, "sha256").hex() == self.sha256.lower()

    def check_size(self, found: int | None, more: str = "") -> None:
        """Raise `UserError` if `found` bytes, where known, are not the wanted ones."""
        if found is not None and self.size not in (None, found):
            raise UserError(f"{self.url} has {found} bytes{more}, expected {self.size}; {self.mend}")

    def check(self, file: Path, remote: _Remote) -> None:
        """Raise `UserError` unless `file` has the wanted size and checksum and those the server promised."""
        found = file.stat().st_size
        self.check_size(found)
        if remote.size not in (None, found):
            raise UserError(f"{self.url} came as {found} bytes, the server says {remote.size}; {self.mend}")
        if self.sha256 is not None and (digest := _digest(file, "sha256").hex()) != self.sha256.lower():
            raise UserError(f"{self.url} has the checksum {digest}, expected {self.sha256}; {self.mend}")
        if remote.md5 is not None and (md5 := base64.b64encode(_digest(file, "md5")).decode()) != remote.md5.strip():
            raise UserError(f"{self.url} came with the MD5 {md5}, the server says {remote.md5}; {self.mend}")


class _Part:
    """The bytes that came so far, and the note of what they are a part of."""

    def __init__(self, target: Path, url: str) -> None:
        self.target = target
        self.file = target.with_name(f".{target.name}.part")
        self.note = target.with_name(f".{target.name}.part.json")
        self.url = url

    @property
    def size(self) -> int:
        """In bytes."""
        return self.file.stat().st_size if self.file.is_file() else 0

    def begin(self, remote: _Remote) -> None:
        """Start from nothing: the old bytes go before the note, lest they lie under one that is not theirs."""
        self.file.write_bytes(b"")
        self.note.write_text(json.dumps(asdict(remote)), encoding="utf-8")

    def remote(self) -> _Remote | None:
        """What the bytes are a part of; None if there are none, or if the rest of them cannot be asked for."""
        try:
            remote = _Remote(**json.loads(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return remote if self.size and remote.url == self.url and remote.version else None

    def put_in_place(self) -> None:
        """On the disk first, then under its name: a power cut leaves the whole file or none."""
        with self.file.open("rb+") as file:
            os.fsync(file.fileno())
        self.file.chmod(0o644)
        os.replace(self.file, self.target)
        self.remove()

    def remove(self) -> None:
        """The bytes and their note."""
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _fetch(wanted: _Wanted, part: _Part, progress: bool) -> None:
    """Fill `part`, check it and put it in place, trying again while tries bring something new or are few."""
    furthest = failures = 0
    with _bar(part.target.name, progress) as report:
        while True:
            try:
                remote = _transfer(wanted, part, report)
                break
            except ConnectionBrokenError:
                if part.remote() is None:
                    part.remove()
                if part.size > furthest:
                    furthest, failures = part.size, 0
                if failures == len(_BACKOFF_S):
                    raise
                time.sleep(_BACKOFF_S[failures])
                failures += 1
    wanted.check(part.file, remote)
    part.put_in_place()


def _transfer(wanted: _Wanted, part: _Part, report: Callable[[int, int | None], None]) -> _Remote:
    """One request: for the whole file, or for the rest of `part`."""
    remote = part.remote()
    done = part.size if remote else 0
    if remote and remote.size == done:
        return remote  # it only lacked the check
    asked = {"Range": f"bytes={done}-", "If-Range": str(remote.version)} if remote else {}
    with get(wanted.url, asked, wanted.mend) as response:
        if response.status == HTTPStatus.OK:
            remote = _Remote(wanted.url, _version(response.headers), response.length, response.headers["Content-MD5"])
            part.begin(remote)
        elif not (remote and response.status == HTTPStatus.PARTIAL_CONTENT and _goes_on(response, remote, done)):
            part.remove()
            raise ConnectionBrokenError(f"the answer {response.status} is not what was asked for")
        wanted.check_size(remote.size)
        _append(response, wanted, part, remote.size if remote.size is not None else wanted.size, report)
    return remote


def _append(
    response: http.client.HTTPResponse,
    wanted: _Wanted,
    part: _Part,
    whole: int | None,
    report: Callable[[int, int | None], None],
) -> None:
    """Add the content of `response` to `part`; `whole` bytes, if that is known, is what the part then has."""
    done = part.size
    with part.file.open("ab") as out:
        for block in blocks(response):
            out.write(block)
            done += len(block)
            report(done, whole)
            if whole is not None and done > whole:
                wanted.check_size(done, " or more")
    if whole is not None and done < whole:
        raise ConnectionBrokenError(f"it broke off at {done} of {whole} bytes")


def _goes_on(response: http.client.HTTPResponse, remote: _Remote, done: int) -> bool:
    """Whether an answer 206 starts at `done` and is of the same file: some servers know Range and not If-Range."""
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if span is None or int(span[1]) != done or _version(response.headers) not in (None, remote.version):
        return False
    return remote.size is None or span[2] in ("*", str(remote.size))


def _version(headers: Message) -> str | None:
    """RFC 9110 section 13.1.5: a weak ETag (W/"…") does not name the same bytes."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers["Last-Modified"]


def _digest(file: Path, algorithm: str) -> bytes:
    digest = hashlib.new(algorithm, usedforsecurity=algorithm != "md5")
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.digest()


@contextlib.contextmanager
def _bar(name: str, wanted: bool) -> Iterator[Callable[[int, int | None], None]]:
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
