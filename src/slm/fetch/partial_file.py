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
from pathlib import Path

from filelock import FileLock, Timeout

from slm.errors import UserError
from slm.fetch.http import Answer
from slm.files.writing import flush_file


class BrokenOffError(UserError):
    """The connection broke; of what came so far is kept what the next try can go on from."""


class PartialFile:
    """The bytes in `file` are to become `target`.

    `whole_only`: the rest was asked for and the server sent the whole, so it is no use to ask again.
    """

    def __init__(self, target: Path, url: str) -> None:
        self.target = target
        self.file = target.with_name(f".{target.name}.part")
        self.whole_only = False
        self._note = target.with_name(f".{target.name}.part.json")
        self._url = url

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
    """The part of `target` that came from `url`, ours alone for the length of the block; it goes when the block ends.

    It stays after `BrokenOffError` and Ctrl-C, if the rest of it can be asked for. Folders that had to be made go too
    if nothing came to lie in them. Where somebody else fills it, `wait` until nobody does; else refuse.

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
