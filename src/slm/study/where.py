"""Conditions on runs as one types them: ``optimizer.lr>1e-3 and (state=done or state=stopped)``. Nothing is evaluated
but comparisons."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from slm.errors import UserError

Lookup = Callable[[str], Any]
"""The value of a run for a name; None where it has none."""

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_TOKEN = re.compile(r"""\s*(?:(<=|>=|==|!=|[=<>()])|"([^"]*)"|'([^']*)'|([^\s()<>=!"']+))""")
_HOW = f"a condition is NAME {' | '.join(_OPERATORS)} VALUE, several are joined by and, or, not, ( )"
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "none": None}


@dataclass(frozen=True)
class Condition:
    """What holds of some runs."""

    names: tuple[str, ...]  # that it speaks of
    holds: Callable[[Lookup], bool]


@dataclass(frozen=True)
class _Token:
    text: str
    is_quoted: bool
    at: int  # where in the text it begins

    @property
    def kind(self) -> str:
        if self.is_quoted or self.text not in ("(", ")", *_OPERATORS):
            return "a word"
        return "an operator" if self.text in _OPERATORS else "a bracket"


def parse_condition(text: str) -> Condition:
    """`UserError` for what is no condition, with the place.

    Numbers are compared as numbers, all else as text (times are written so that this is their order). A run without the
    name meets ``!=`` alone, and ``=null``.
    """
    parser = _Parser(text)
    try:
        condition = parser.any_of()
    except RecursionError:
        raise UserError(f"where: its brackets are nested too deep; {_HOW}") from None
    parser.refuse_more()
    return condition


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._place = 0

    def any_of(self) -> Condition:
        parts = [self._all_of()]
        while self._take("or"):
            parts.append(self._all_of())
        return Condition(_names(parts), lambda run: any(part.holds(run) for part in parts))

    def refuse_more(self) -> None:
        if self._place < len(self._tokens):
            self._refuse()

    def _all_of(self) -> Condition:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return Condition(_names(parts), lambda run: all(part.holds(run) for part in parts))

    def _one(self) -> Condition:
        if self._take("not"):
            inner = self._one()
            return Condition(inner.names, lambda run: not inner.holds(run))
        if self._take("("):
            inside = self.any_of()
            if not self._take(")"):
                self._refuse()
            return inside
        return self._comparison()

    def _comparison(self) -> Condition:
        name, sign, value = self._next("a word"), self._next("an operator"), self._next("a word")
        wanted = value.text if value.is_quoted else _WORDS.get(value.text.lower(), value.text)
        compare = _OPERATORS[sign.text]
        return Condition((name.text,), lambda run: _compared(compare, run(name.text), wanted))

    def _take(self, word: str) -> bool:
        if self._place >= len(self._tokens):
            return False
        token = self._tokens[self._place]
        found = not token.is_quoted and token.text.lower() == word
        self._place += found
        return found

    def _next(self, kind: str) -> _Token:
        token = self._tokens[self._place] if self._place < len(self._tokens) else None
        if token is None or token.kind != kind:
            self._refuse()
        assert token is not None
        self._place += 1
        return token

    def _refuse(self) -> NoReturn:
        rest = self._text[self._tokens[self._place].at :] if self._place < len(self._tokens) else ""
        place = f"'{rest}'" if rest else "its end"
        raise UserError(f"where: cannot read '{self._text}' at {place}; {_HOW}")


def _tokens(text: str) -> Iterator[_Token]:
    at, end = 0, len(text.rstrip())
    while at < end:
        if (found := _TOKEN.match(text, at)) is None:
            raise UserError(f"where: cannot read '{text}' at '{text[at:].strip()}'; {_HOW}")
        quoted = found[2] if found[2] is not None else found[3]
        whole = found[0]
        start = at + len(whole) - len(whole.lstrip())
        yield _Token(quoted if quoted is not None else found[1] or found[4], quoted is not None, start)
        at = found.end()


def _names(parts: list[Condition]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in parts for name in part.names))


def _compared(compare: Callable[[Any, Any], bool], found: Any, wanted: Any) -> bool:
    if found is None or wanted is None:
        return compare in (operator.eq, operator.ne) and compare(found, wanted)
    numbers = _number(found), _number(wanted)
    if None not in numbers:
        return compare(*numbers)
    return compare(_text(found), _text(wanted))


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
