"""A file on its way: its bytes and a note of what they are a part of lie beside its place under hidden names.

.NAME.part         the bytes so far
.NAME.part.json    the address, and what the server said of the whole file
.NAME.lock         who fills it, while somebody does
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from slm.errors import UserError


class BrokenOffError(UserError):
    """The connection broke; of what came so far is kept what the next try can go on from."""


@dataclass(frozen=True)
class Remote:
    """What a server says of a whole file.

    Attributes:
        url: the address asked.
        version: what names these very bytes (a strong ETag, else Last-Modified), to ask for the rest of them.
        size: bytes.
        md5: base64, as Content-MD5 has it, if that is one.
        final_url: the address behind all redirects.
        content_type: of the header of this name, in lower case without parameters; may be empty.
        content_encoding: of the header of this name, in lower case; may be empty.
    """

    url: str
    version: str | None
    size: int | None
    md5: str | None
    final_url: str = ""
    content_type: str = ""
    content_encoding: str = ""


class PartialFile:
    """The bytes that came so far, and the note of what they are a part of.

    Attributes:
        target: the file they are to become.
        file: where they lie.
        whole_only: the rest was asked for and the server sent the whole, so it is no use to ask again.
    """

    def __init__(self, target: Path, url: str) -> None:
        self.target = target
        self.whole_only = False
        self.file = target.with_name(f".{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        self._url = url

    @property
    def size(self) -> int:
        """In bytes."""
        return self.file.stat().st_size if self.file.is_file() else 0

    @property
    def kept_note(self) -> str:
        """For a message: what the next call has, if anything."""
        return f"; {self.size} bytes are kept, the same again goes on from there" if self.remote() else ""

    def begin(self, remote: Remote) -> None:
        """Start from nothing: the old bytes go before the note, lest they lie under one that is not theirs."""
        self.remove()
        with self.file.open("xb"), self._note.open("x", encoding="utf-8") as note:  # "x" follows no link
            json.dump(asdict(remote), note)

    def remote(self) -> Remote | None:
        """What the bytes are a part of; None if there are none, or if the rest of them cannot be asked for."""
        try:
            remote = Remote(**json.loads(self._note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        resumable = remote.version and not self.whole_only and not self.file.is_symlink()
        return remote if self.size and remote.url == self._url and resumable else None

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
        self._note.unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(target: Path, url: str, wait: bool = True) -> Iterator[PartialFile]:
    """The partial file of `target`, ours alone for the length of the block; it goes when the block ends.

    It stays after `BrokenOffError` and Ctrl-C, if the rest of it can be asked for. Folders that had to be made go too
    if nothing came to lie in them.

    Args:
        target: the file to make.
        url: where it comes from; a part that came from elsewhere is not gone on with.
        wait: until nobody else fills it; else refuse.

    Raises:
        UserError: somebody else fills it, and `wait` is False.
        OSError: its folder cannot be made or written to.
    """
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
