"""What every reader gives out, and all that follows works on."""

from __future__ import annotations

from dataclasses import dataclass


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

    @property
    def is_part(self) -> bool:
        """It is not a whole document."""
        return not (self.begins and self.ends)
