"""Whether text is JSON (RFC 8259), told piece by piece: memory is bounded however large a file, line or string is.

A parser would hold the whole value, in ten times the space of its text; nothing here is kept but the brackets that are
open and the end of the last piece where a token may go on in the next one.
"""

from __future__ import annotations

import re
from typing import NoReturn

_MAX_DEPTH = 500
"""Readers that recurse, Python's among them, give up at about twice as much."""
_MAX_NUMBER = 4300
"""Characters; Python reads no longer integer by default (`sys.int_info.default_max_str_digits`)."""

_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPES = re.compile(r'(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))+')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_OR_WORD = re.compile(r"[-+.0-9a-zA-Z_$]+")
_ITEMS = re.compile(
    r'(?:[ \t\n\r]*,[ \t\n\r]*(?:"[^"\\\x00-\x1f]*"|true|false|null'
    r"|-?(?:0|[1-9][0-9]{0,999})(?:\.[0-9]{1,999})?(?:[eE][+-]?[0-9]{1,9})?)(?=[ \t\n\r]*[,\]])){1,1000}"
)
"""Further plain items of an array: nothing but speed, five times of it for numbers."""
_LITERALS = ("true", "false", "null")
_LONGEST_ESCAPE = len(r"\uffff")

# what may stand next
_VALUE, _VALUE_OR_END, _KEY, _KEY_OR_END, _COLON, _COMMA_OR_END, _NOTHING = (
    "a value",
    "a value or ']'",
    "a name in quotes",
    "a name in quotes or '}'",
    "':'",
    "',' or a closing bracket",
    "the end",
)


class JsonSyntaxError(ValueError):
    """It is not JSON; the text says where and why."""


class JsonSyntax:
    """Takes the text of one JSON value in pieces.

    Attributes:
        blank: nothing but white space was fed so far.
    """

    def __init__(self) -> None:
        self._open: list[str] = []
        self._next = _VALUE
        self._string: str | None = None  # what may stand after the string that is open
        self._rest = ""
        self._seen = 0  # characters before self._rest
        self.blank = True

    def feed(self, text: str) -> None:
        """Take the next piece.

        Raises:
            JsonSyntaxError: it cannot be JSON, whatever follows.
        """
        text = self._rest + text
        at, end = 0, len(text)
        while at < end:
            step = self._in_string(text, at) if self._string is not None else self._between_strings(text, at)
            if step == at:  # a token that may go on in the next piece
                break
            at = step
        self._rest, self._seen = text[at:], self._seen + at

    def close(self) -> None:
        """There is no more.

        Raises:
            JsonSyntaxError: something is missing.
        """
        end = self._seen + len(self._rest)
        if self._rest:
            self.feed(" ")  # ends a number or word; a space inside a string does no harm
        if self._string is not None or self._next != _NOTHING:
            self._refuse(end, "the end", '"' if self._string is not None else self._next)

    def _between_strings(self, text: str, at: int) -> int:
        """Where the next token ends; `at` if it may go on in the next piece."""
        if self._next == _COMMA_OR_END and self._open[-1] == "[" and (items := _ITEMS.match(text, at)):
            return items.end()
        start = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty text too
        if start == len(text):
            return start
        self.blank = False
        character = text[start]
        if character == '"':
            self._begin_string(start)
        elif character in "[{" and self._next in (_VALUE, _VALUE_OR_END):
            if len(self._open) == _MAX_DEPTH:
                raise JsonSyntaxError(
                    f"more than {_MAX_DEPTH} brackets are open at character {self._seen + start + 1:,}"
                )
            self._open.append(character)
            self._next = _VALUE_OR_END if character == "[" else _KEY_OR_END
        elif character in "]}":
            self._end_bracket(character, start)
        elif character == "," and self._next == _COMMA_OR_END:
            self._next = _VALUE if self._open[-1] == "[" else _KEY
        elif character == ":" and self._next == _COLON:
            self._next = _VALUE
        elif self._next in (_VALUE, _VALUE_OR_END) and (word := _NUMBER_OR_WORD.match(text, start)):
            return self._number_or_word(text, at, word)
        else:
            self._refuse(self._seen + start, repr(character))
        return start + 1

    def _begin_string(self, start: int) -> None:
        if self._next in (_KEY, _KEY_OR_END):
            self._string = _COLON
        elif self._next in (_VALUE, _VALUE_OR_END):
            self._string = self._after_value()
        else:
            self._refuse(self._seen + start, "a string")

    def _end_bracket(self, character: str, start: int) -> None:
        opening = "[" if character == "]" else "{"
        if not self._open or self._open[-1] != opening or self._next in (_VALUE, _KEY, _COLON):
            self._refuse(self._seen + start, repr(character))
        self._open.pop()
        self._next = self._after_value()

    def _number_or_word(self, text: str, at: int, word: re.Match[str]) -> int:
        found = word[0]
        if len(found) > _MAX_NUMBER:
            raise JsonSyntaxError(
                f"a number or word is longer than {_MAX_NUMBER} at character {self._seen + word.start() + 1:,}"
            )
        if word.end() == len(text):
            return at
        if found not in _LITERALS and not _NUMBER.fullmatch(found):
            self._refuse(self._seen + word.start(), repr(found[:20]))
        self._next = self._after_value()
        return word.end()

    def _in_string(self, text: str, at: int) -> int:
        """Where the string ends or cannot be read further; `at` if that is where it stands."""
        while True:
            at = _PLAIN.match(text, at).end()  # type: ignore[union-attr]
            if at == len(text):
                return at
            if text[at] == '"':
                assert self._string is not None
                self._next, self._string = self._string, None
                return at + 1
            escapes = _ESCAPES.match(text, at)
            if escapes is None:
                if text[at] == "\\" and len(text) - at < _LONGEST_ESCAPE:
                    return at
                self._refuse(self._seen + at, f"{text[at : at + 2]!r} in a string", "a character or an escape")
            at = escapes.end()

    def _after_value(self) -> str:
        return _COMMA_OR_END if self._open else _NOTHING

    def _refuse(self, place: int, found: str, expected: str | None = None) -> NoReturn:
        raise JsonSyntaxError(f"expected {expected or self._next} at character {place + 1:,}, found {found}")
