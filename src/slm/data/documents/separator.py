"""Where one document of a text ends and the next begins."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from slm.data.config import AUTO, is_expression
from slm.data.documents.compression import BrokenFileError

NONE, BLANK_LINES, HEADING = "none", "blank_lines", "heading"
ENDS_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<EOS>", "[EOS]")
LOOKED_AT = 1 << 18  # bytes at the beginning of a file in which an end of text is looked for
REACH = 1024  # bytes: no place to divide at, with what tells it, is longer

_BLANK = rb"\n[ \t\r]{0,80}(?=\n)"
# ` = Title = ` of WikiText, whose sections have two signs or more
_TITLE = rb"\n(?= ?= (?!=)[^\n]{1,300}(?<!=) = ?\r?(?:\n|\Z))"


class Separator(NamedTuple):
    """What a `pattern` takes belongs to no document: an end of text, or the end of the line ahead of a separator.
    `told` counts the documents."""

    pattern: re.Pattern[bytes]
    told: str


class Piece(NamedTuple):
    """A part of a document that begins at byte `document` (0 if it is the only one), itself at `offset`."""

    raw: bytes
    offset: int
    begins: bool
    ends: bool
    document: int = 0


def separator_of(wanted: str, head: bytes) -> Separator | None:
    """What `wanted` stands for, as `Reading.separator` has it; "auto" in a text that begins with `head`."""
    if wanted == AUTO:
        counts = {end: len(_line(end).findall(b"\n" + head)) for end in ENDS_OF_TEXT if end.encode() in head}
        wanted = max(counts, key=counts.__getitem__, default=NONE)
        wanted = wanted if counts.get(wanted) else NONE
    elif wanted in ENDS_OF_TEXT:
        anywhere = re.escape(wanted.encode()) + rb"(?:[ \t]{0,80}\r?(?=\n|\Z))?"
        return Separator(re.compile(anywhere), f"documents by '{wanted}'")
    if wanted == NONE:
        return None
    if wanted == BLANK_LINES or not wanted.strip("\r\n"):
        return Separator(re.compile(_BLANK), "documents by blank lines")
    if wanted == HEADING:
        return Separator(re.compile(_TITLE), "documents by headings ' = Title = '")
    if is_expression(wanted):
        line = rb"\n(?=[^\n]{1,%d}(?:\n|\Z))(?=%b)" % (REACH // 2, wanted[1:-1].encode())
        return Separator(re.compile(line, re.MULTILINE), f"documents by lines like {wanted}")
    wanted = wanted.strip("\r\n")
    return Separator(_line(wanted), f"documents by the line '{wanted}'")


def undivided(head: bytes) -> str:
    """What is told of a text that begins with `head` and that nothing divides though a setting could."""
    if end := next((end for end in ENDS_OF_TEXT if head.count(end.encode()) > 1), None):
        return f"files with '{end}' inside lines are one document each (\"data.separator='{end}'\" divides them)"
    if len(re.findall(_TITLE, b"\n" + head)) > 1:
        return "files with headings ' = Title = ' are one document each (data.separator=heading divides them)"
    return ""


def _line(content: str) -> re.Pattern[bytes]:
    return re.compile(rb"\n" + re.escape(content.encode()) + rb"[ \t]{0,80}\r?(?=\n|\Z)")


Cut = Callable[[bytes, int], int]
"""Gives the place in bytes, near a place, to cut a long document at."""


class Division:
    """A text divided into the documents that begin in its bytes ``start .. end``, without the line ends around them;
    those of twice `step` bytes or more in pieces. What is nothing but white space is no document."""

    def __init__(self, separator: Separator, start: int, end: int, cut: Cut, step: int) -> None:
        self._pattern, self._start, self._end, self._cut, self._step = separator.pattern, start, end, cut, step
        self._held, self._base = b"\n", -1  # what is held of the text, and where that begins: at first behind a line
        self._searched = 0  # up to here in it there is no further separator
        self._document: int | None = 0 if start == 0 else None  # where in it the rest of a document begins
        self._place, self._begins = 0, True  # where in the text that document begins, and whether it is all of it

    def pieces(self, source: Iterator[bytes], at: int) -> Iterator[Piece]:
        """Out of the text from byte `at` on, at most `REACH` ahead of `start`. Raises `BrokenFileError` where `source`
        does, after what was read."""
        if at:
            self._held, self._base = b"", at
        for more, is_last in _with_end(source):
            self._held += more
            sure = len(self._held) if is_last else len(self._held) - REACH
            while (found := self._pattern.search(self._held, self._searched)) and found.end() <= sure:
                yield from self._ended(found.start())
                place = self._base + found.end()
                if place >= self._end:
                    return
                self._document = found.end() if place >= self._start else None
                self._searched = found.end()
            self._searched = max(self._searched, min(found.start(), sure) if found else sure)
            if self._document is None and self._base + self._searched >= self._end:
                return
            yield from self._ended(len(self._held)) if is_last else self._long(self._searched)
            self._forget()

    def _ended(self, stop: int) -> Iterator[Piece]:
        """The rest of the document, if one is read, which ends there."""
        yield from self._long(stop)
        if self._document is not None:
            yield from self._piece(stop, ends=True)

    def _long(self, stop: int) -> Iterator[Piece]:
        while self._document is not None and stop - self._document >= 2 * self._step:
            enough = self._held[: self._document + 2 * self._step]
            yield from self._piece(self._cut(enough, self._document + self._step), ends=False)

    def _piece(self, stop: int, ends: bool) -> Iterator[Piece]:
        assert self._document is not None
        raw = self._held[self._document : stop]
        text = raw.lstrip(b"\r\n") if self._begins else raw
        offset = self._base + self._document + len(raw) - len(text)
        text = text.rstrip(b"\r\n") if ends else text
        self._place = offset if self._begins else self._place
        if not (self._begins and ends) or text.strip():
            yield Piece(text, offset, self._begins, ends, self._place)
        self._begins, self._document = ends, stop

    def _forget(self) -> None:
        """Of what is held, what nobody needs again."""
        gone = self._searched if self._document is None else self._document
        self._held, self._base, self._searched = self._held[gone:], self._base + gone, self._searched - gone
        self._document = None if self._document is None else 0


def _with_end(source: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The pieces, and an empty one that is the last; then the error with which they broke off."""
    broken = None
    try:
        for piece in source:
            yield piece, False
    except BrokenFileError as error:
        broken = error
    yield b"", True
    if broken is not None:
        raise broken
