"""Fetch one file: resumed where the connection broke, checked, and in its place only when whole."""

import base64
import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpcore2
from filelock import FileLock, Timeout
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exception, wait_exponential

from slm.errors import UserError
from slm.fetch.http import Access, Answer, ConnectionBrokenError, get
from slm.files.reading import digest_of
from slm.files.writing import flush_file
from slm.progress import byte_progress

_PAUSE_S = 0.5  # after a try; each of those in a row that bring nothing new waits twice as long as the one before
_VAIN_TRIES = 4
_MOST_TRIES = 100  # however much each of them brings: a server that breaks off after every byte is not worth more
_LONGEST_WAIT_S = 60  # a server that asks for more (Retry-After) is not waited for

Report = Callable[..., None]  # see `slm.progress.byte_progress`


class BrokenOffError(UserError):
    """The connection broke; of what came so far is kept what the next try can go on from."""


@dataclass(frozen=True)
class Wanted:
    """What to fetch, how, and what it must be, as far as that is known."""

    url: str
    access: Access
    sha256: str | None = None
    size: int | None = None
    max_size: int | None = None

    def is_at(self, file: Path) -> bool:
        """Whether `file` is there and is what is known of the wanted one."""
        if not file.is_file() or self.size not in (None, file.stat().st_size):
            return False
        return self.sha256 is None or digest_of(file) == self.sha256.lower()

    def check_size(self, found: int | None, more: str = "") -> None:
        """Raise `UserError` if `found` bytes, where known, are not the wanted ones."""
        if found is not None and self.size not in (None, found):
            raise UserError(f"{self.url} has {found} bytes{more}, expected {self.size}; {self.access.mend}")
        if found is not None and self.max_size is not None and found > self.max_size:
            most = f"allowed are {self.max_size}; raise max_size if it is meant to be so large"
            raise UserError(f"{self.url} has {found} bytes{more}, {most}")

    def check(self, file: Path, remote: Answer) -> None:
        """Raise `UserError` unless `file` has the wanted size and checksum, and the MD5 that the server promised."""
        self.check_size(file.stat().st_size)
        mend = self.access.mend
        if self.sha256 is not None and (digest := digest_of(file)) != self.sha256.lower():
            raise UserError(f"{self.url} has the checksum {digest}, expected {self.sha256}; {mend}")
        if remote.md5 and (md5 := base64.b64encode(bytes.fromhex(digest_of(file, "md5"))).decode()) != remote.md5:
            raise UserError(f"{self.url} came with the MD5 {md5}, the server says {remote.md5}; {mend}")


class PartialFile:
    """The bytes in `file` are to become `target`; they and a note about them lie beside it under hidden names."""

    def __init__(self, target: Path, url: str) -> None:
        self.target, self._url = target, url
        self.file = target.with_name(f".{target.name}.part")
        self.whole_only = False  # the rest was asked for and the server sent the whole: no use to ask again
        self._note = target.with_name(f".{target.name}.part.json")  # of what it is a part: the server's answer

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    @property
    def kept_note(self) -> str:
        """For a message: what the next call has, if anything."""
        return f"; {self.size} bytes are kept, the same again goes on from there" if self.remote() else ""

    def begin(self, answer: Answer) -> None:
        """Start from nothing: the old bytes go before the note, lest they lie under one that is not theirs."""
        self.remove()
        with self.file.open("xb"), self._note.open("x", encoding="utf-8") as note:  # "x" follows no link
            json.dump({"url": answer.url, "final_url": answer.final_url, "headers": answer.headers}, note)

    def remote(self) -> Answer | None:
        """What the bytes are a part of; None if there are none, or if the rest of them cannot be asked for."""
        try:
            remote = Answer(status=200, **json.loads(self._note.read_text(encoding="utf-8")))
            is_text = all(isinstance(text, str) for text in (remote.final_url, *remote.headers.values()))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None
        resumable = is_text and remote.url == self._url and remote.version and not self.whole_only
        return remote if self.size and resumable and not self.file.is_symlink() else None

    def put_in_place(self) -> None:
        """On the disk first, then under its name: a power cut leaves the whole file or none."""
        flush_file(self.file)
        self.file.chmod(0o644)
        os.replace(self.file, self.target)
        self.remove()

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(target: Path, url: str, wait: bool = True) -> Iterator[PartialFile]:
    """The part of `target` that came from `url`, ours alone for the length of the block; it goes when the block ends,
    but for `BrokenOffError` and Ctrl-C, if the rest of it can be asked for. Where somebody else fills it, `wait` until
    nobody does; else raise `UserError`."""
    lock = target.with_name(f".{target.name}.lock")
    part = PartialFile(target, url)
    with _made_folder(target.parent):
        try:
            with FileLock(lock, timeout=-1 if wait else 0):  # two processes must not write to one part
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)  # whoever held the lock may have taken it back
                    yield part
                except KeyboardInterrupt:
                    raise KeyboardInterrupt(f"interrupted{part.kept_note}") from None
                except BrokenOffError:
                    raise
                except BaseException:
                    part.remove()
                    raise
                finally:
                    if part.remote() is None:
                        part.remove()
                    lock.unlink(missing_ok=True)
        except Timeout:
            raise UserError(f"another process is fetching {target}; wait for it, or name another file") from None


@contextlib.contextmanager
def _made_folder(folder: Path) -> Iterator[None]:
    """`folder` is there; of what had to be made, what is empty at the end is taken back."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for place in missing:
            with contextlib.suppress(OSError):
                place.rmdir()


def download(url: str, target: Path, *, sha256: str | None, size: int | None = None, mend: str) -> None:
    """Fetch `url` into `target`, unless it has the wanted size (in bytes) and checksum (in hex), where known, already.

    A broken connection is taken up where it broke, a few times now, and by the next call for the same `url`. Where the
    server says no length and closes the connection early (HTTP/1.0), only `size` or `sha256` can tell. `mend` is what
    the user can do instead, for the messages. `UserError`: it cannot be reached, is not there, breaks off again and
    again, is redirected to another scheme or without end, has another size or checksum (also than the server says), or
    cannot be written. `target` is then as it was; what came over a connection that broke, or until Ctrl-C, is kept.
    """
    wanted = Wanted(url, Access(mend), sha256, size)
    with writing(target):
        if wanted.is_at(target):  # asked before claiming it: its folder may be one that cannot be written to
            return
        with claimed(target, url) as part:
            if not wanted.is_at(target):  # another process may have fetched it while we waited
                fetch(wanted, part)
                part.put_in_place()


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """An `OSError` of the block is told to the user: `target` could not be written."""
    try:
        yield
    except OSError as error:
        said = error.strerror or error
        raise UserError(f"cannot write {target} ({said}); make room or name another place") from error


def fetch(wanted: Wanted, part: PartialFile) -> Answer:
    """Fill `part` with the wanted bytes, going on with those it holds; gives what the server says of the file.
    `BrokenOffError`: no connection lasts; `UserError` as `download`, OSError where `part` cannot be written."""
    try:
        with byte_progress(part.target.name) as report:
            remote = _persist(wanted, part, report)
    except ConnectionBrokenError as broken:
        said = f"cannot download {wanted.url} ({broken}{part.kept_note})"
        raise BrokenOffError(f"{said}; with no network, {wanted.access.mend}") from broken
    wanted.check(part.file, remote)
    return remote


def _persist(wanted: Wanted, part: PartialFile, report: Report) -> Answer:
    def bring_more() -> Answer | None:
        before = part.size
        try:
            return _transfer(wanted, part, report)
        except ConnectionBrokenError:
            if part.remote() is None:
                part.remove()
            if part.size > before:
                return None  # it broke off on the way
            raise

    tries = Retrying(
        retry=retry_if_exception(lambda e: isinstance(e, ConnectionBrokenError) and e.retry_after <= _LONGEST_WAIT_S),
        wait=wait_exponential(_PAUSE_S) + wait_exception(lambda broken: getattr(broken, "retry_after", 0)),
        stop=stop_after_attempt(_VAIN_TRIES),
        reraise=True,
    )
    for _ in range(_MOST_TRIES):
        if remote := tries(bring_more):
            return remote
        time.sleep(_PAUSE_S)
    raise ConnectionBrokenError(f"it broke off {_MOST_TRIES} times")


def _transfer(wanted: Wanted, part: PartialFile, report: Report) -> Answer:
    """One request: for the whole file, or for the rest of `part`."""
    known = part.remote()
    done = part.size if known else 0
    if known and known.size == done:
        return known  # it only lacked the check
    asked = {"Range": f"bytes={done}-", "If-Range": str(known.version)} if known else {}
    with get(wanted.url, asked, wanted.access) as answer:
        goes_on = known and answer.status == 206 and _goes_on(answer, known, done)
        if not goes_on and answer.status != 200:
            part.remove()
            raise ConnectionBrokenError(f"the answer {answer.status} is not what was asked for")
        remote = known if known and goes_on else answer
        wanted.check_size(remote.size)
        if not goes_on:
            part.whole_only |= known is not None and known.version == answer.version
            part.begin(answer)
        _append(answer, wanted, part, remote.size if remote.size is not None else wanted.size, report)
    return remote


def _goes_on(answer: Answer, known: Answer, done: int) -> bool:
    """Whether an answer 206 starts at `done` and is of the same file: some servers know Range and not If-Range."""
    span = re.fullmatch(r"bytes ([0-9]{1,20})-[0-9]+/([0-9]{1,20}|\*)", answer.headers.get("content-range", ""))
    if span is None or int(span[1]) != done or answer.version not in (None, known.version):
        return False
    return known.size is None or span[2] in ("*", str(known.size))


def _append(answer: Answer, wanted: Wanted, part: PartialFile, whole: int | None, report: Report) -> None:
    """Add the content of `answer` to `part`; `whole` bytes, if that is known, is what the part then has."""
    done = part.size
    try:
        with part.file.open("ab") as out:
            for block in answer.blocks:
                out.write(block)
                done += len(block)
                report(completed=done, total=whole)
                if whole is None or done > whole:
                    wanted.check_size(done, " or more")
                if whole is not None and done > whole:
                    said = f"{done} bytes or more, the server says {whole}"
                    raise UserError(f"{wanted.url} came as {said}; {wanted.access.mend}")
        cut = whole is not None and done < whole
    except httpcore2.RemoteProtocolError:
        cut = True
    if cut:
        where = "before its end" if whole is None else f"at {done} of {whole} bytes"
        raise ConnectionBrokenError(f"it broke off {where}")
