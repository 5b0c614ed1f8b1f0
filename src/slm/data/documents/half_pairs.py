r"""Half a surrogate pair in JSON's escapes (``\ud800`` alone), which parsers make a "?" of, or break off at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_HALF = "\ud800"  # what Python's own parser makes of one; it has no UTF-8, so that whoever checks finds it
_MARK, _MARK_ESCAPE = "\ufdd3", rb"\ufdd3"  # a noncharacter, as long as what it stands for
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ANY = re.compile(rb"\\u[dD][89a-fA-F]")
# After an even number of backslashes, which are escaped ones. A whole pair is found too, so that no half of it is.
_SURROGATES = re.compile(rb"(?<!\\)((?:\\\\)*)(?:(%b%b)|%b|%b)" % (_HIGH, _LOW, _HIGH, _LOW))
# Finds whatever that takes for a half, and some that it does not, without asking Python about each whole pair.
_SUSPECT = re.compile(
    rb"\\(?:u[dD](?:[89abAB][0-9a-fA-F]{2}(?!%b)|[c-fC-F][0-9a-fA-F]{2}(?<!%b%b))|%b%b)"
    % (_LOW, _HIGH, _LOW, _HIGH, _LOW)
)
_UNFINISHED = re.compile(rb"(?:%b)?(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z" % _HIGH)
_LONGEST_UNFINISHED = 11
_BACKSLASH = 0x5C


class HalfPairs:
    """Takes halves past a parser: a mark in their stead goes in, and of what comes out marks are made halves again.

    Until the first one is found nothing is looked through but bytes.
    """

    def __init__(self) -> None:
        self._found = False

    def marked(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """JSON as it comes; an escape, or a pair of them, that a piece cuts in two is held until the next."""
        held = b""
        for piece in pieces:
            data = held + piece
            end = _finished(data)
            held = data[end:]
            yield self._with_marks(data[:end])
        if held:
            yield self._with_marks(held)

    def restored(self, value: Any) -> Any:
        """A parsed value, in which each mark is half a pair."""
        if not self._found:
            return value
        if isinstance(value, str):
            return value.replace(_MARK, _HALF)
        if isinstance(value, list):
            return [self.restored(one) for one in value]
        if isinstance(value, dict):
            return {self.restored(key): self.restored(one) for key, one in value.items()}
        return value

    def _with_marks(self, data: bytes) -> bytes:
        if _ANY.search(data) and _SUSPECT.search(data):
            return _SURROGATES.sub(self._replaced, data)
        return data

    def _replaced(self, found: re.Match[bytes]) -> bytes:
        if found[2] is not None:
            return found[0]
        self._found = True
        return found[1] + _MARK_ESCAPE


def _finished(data: bytes) -> int:
    """How much of it ends with no escape under way, and with no first half whose second may follow."""
    found = _UNFINISHED.search(data, max(0, len(data) - _LONGEST_UNFINISHED))
    assert found is not None, "it matches nothing at all, too"
    end = found.start()
    while end < len(data) and end and data[end - 1] == _BACKSLASH:  # whether one is escaped is told from all of them
        end -= 1
    return end
