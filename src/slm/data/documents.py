"""Documents, and how they are parted for training and validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from slm.errors import UserError


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


@dataclass(frozen=True)
class Split:
    """Training and validation documents; none is in both."""

    train: list[Document]
    val: list[Document]


def split_documents(documents: Sequence[Document], val_fraction: float) -> Split:
    """Hold out `val_fraction` of the characters for validation.

    Of several documents, whole ones are held out, chosen by the hash of their name, so that a new
    file moves few others from one part to the other; of a single one, its last part.

    Raises:
        UserError: a part would be empty.
    """
    if len(documents) == 1:
        return _split_one(documents[0], val_fraction)
    wanted = val_fraction * sum(len(document.text) for document in documents)
    by_hash = sorted(documents, key=lambda document: hashlib.sha256(document.name.encode()).digest())
    val: list[Document] = []
    held_out = 0
    for document in by_hash[:-1]:  # at least one stays for training
        if held_out + len(document.text) / 2 <= wanted:
            val.append(document)
            held_out += len(document.text)
        elif val:
            break
    if not val:  # each is far longer than what is to be held out
        val = [min(by_hash, key=lambda document: len(document.text))]
    names = {document.name for document in val}
    return Split([document for document in documents if document.name not in names], val)


def _split_one(document: Document, val_fraction: float) -> Split:
    cut = int(len(document.text) * (1 - val_fraction))
    parts = [  # no text ends at the cut, and where the validation part ends nothing follows
        Document(document.name, document.text[:cut], ends=False),
        Document(document.name, document.text[cut:], begins=False, ends=False),
    ]
    if not all(part.text for part in parts):
        raise UserError(
            f"data: '{document.name}' has {len(document.text)} characters, too few to hold out a fraction of "
            f"{val_fraction} for validation; give more text or another data.val_fraction"
        )
    return Split([parts[0]], [parts[1]])
