"""What every reader gives out, and all that follows works on; and where a text that is too long to be held is cut.

Tokenizers cut text into words before anything else, and no pattern in use joins a letter or a digit to white space
that follows it (a mark may be joined to the line break behind it: OpenAI's cl100k_base does). So a text is cut
between a letter or digit and a space. Where none is near, it is cut between two characters, and a word there may be
spelt by other tokens than in the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

PART_SIZE = 8 << 20
"""Bytes of a file, or characters of a record's text, that a part has at least; it has less than twice as many."""
SEARCHED = 1 << 16
"""How far a good place to cut is looked for."""

# a space first: vocabularies in the way of SentencePiece put one before every text that begins with none
_PLACES = (re.compile(r"(?<=[^\W_]) "), re.compile(r"(?<=[^\W_])\s"))


@dataclass(frozen=True)
class Document:
    """One text, or a part of one that is too long to be held, and where it came from.

    Attributes:
        name: path relative to the corpus, so that it is the same on every machine; in a file of many texts, with
            the place in it ("a.jsonl@1024"). Parts of one document have the same name and come one after another.
        text: the content. Only a part that was left out has none.
        begins: it is not the later part of a document: what stands before every text belongs before it.
        ends: it is not an earlier part of a document: the end of text belongs after it.
    """

    name: str
    text: str
    begins: bool = True
    ends: bool = True


def cut_place(text: str, start: int, end: int) -> int:
    """The first good place to cut `text` in ``start .. end``; `start` if there is none."""
    for place in _PLACES:
        if found := place.search(text, start, end):
            return found.start()
    return start


def in_parts(name: str, text: str, part_size: int = PART_SIZE, searched: int = SEARCHED) -> Iterator[Document]:
    """A document as one or, from twice `part_size` characters on, as several parts."""
    start = 0
    while len(text) - start >= 2 * part_size:
        cut = cut_place(text, start + part_size, start + part_size + min(searched, part_size // 2))
        yield Document(name, text[start:cut], begins=start == 0, ends=False)
        start = cut
    yield Document(name, text[start:] if start else text, begins=start == 0)
