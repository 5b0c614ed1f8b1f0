"""Which known name was meant: letters mistyped, words left out or spelt out, or another tool's name for the thing."""

import difflib
import functools
import re
from collections.abc import Iterable
from pathlib import Path

ENOUGH = 0.6  # likeness below which a name suggests nothing
_ALL_WORDS, _SOME_WORDS = 0.95, 0.85
_SHORTEST_STEM = 3  # letters two words must begin with alike for one to be short for the other: seq, sequence
_SHORT = {"num": "n", "number": "n"}


def ranked(name: str, known: Iterable[str]) -> list[str]:
    """Those of the `known` names that `name` may have been meant to be, the likeliest first."""
    names = list(dict.fromkeys(known))
    likes = {other: likeness(name, other) for other in names}
    alike = sorted((other for other in names if likes[other] >= ENOUGH), key=lambda other: -likes[other])
    called = [target for full in meant(name) for target in (full, full.rpartition(".")[2]) if target in names]
    return list(dict.fromkeys([*called, *alike]))


def likeness(name: str, other: str) -> float:
    """How alike two names are, from 0 to 1: by their letters, or by the words they are made of."""
    letters = difflib.SequenceMatcher(None, _letters(name), _letters(other)).ratio()
    return max(letters, _likeness_of_words(_words(name), _words(other)))


@functools.cache
def other_names() -> dict[str, list[str]]:
    """What others call a thing -> what it is called here, the likeliest first."""
    return {name: targets.split(" | ") for names, targets in _table(" -> ") for name in names.split()}


def not_here(name: str) -> str | None:
    """What is told of `name`, which others have and slm has not; None for any other."""
    return next((told for names, told in _table(" => ") if name in names.split()), None)


@functools.cache
def derived() -> dict[str, str]:
    """Settings of Lightning's Trainer that follow from others here -> what to set instead."""
    return dict(_table(" ~> "))


def meant(name: str) -> list[str]:
    """What is called here what others call `name`."""
    lower = name.lower()
    return other_names().get(lower) or other_names().get(lower.replace("-", "_"), [])


def _table(arrow: str) -> list[tuple[str, str]]:
    text = Path(__file__).with_name("other_names.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if arrow in line and not line.startswith("#")]
    return [(names, said) for names, _, said in (line.partition(arrow) for line in lines)]


def _letters(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


def _words(name: str) -> list[str]:
    spelt = re.sub(r"[- ]", "_", name.lower()).replace("learning_rate", "lr")
    return [_SHORT.get(word, word) for word in spelt.split("_") if word]


def _likeness_of_words(ours: list[str], others: list[str]) -> float:
    fewer, more = sorted((ours, others), key=len)
    found = sum(any(_same_word(a, b) for b in more) for a in fewer)
    if not fewer or found < len(fewer):
        return 0.0
    return _ALL_WORDS if len(fewer) == len(more) else _SOME_WORDS


def _same_word(a: str, b: str) -> bool:
    short, long = sorted((a, b), key=len)
    return a == b or (len(short) >= _SHORTEST_STEM and long.startswith(short))
