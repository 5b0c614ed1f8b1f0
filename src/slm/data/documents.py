"""Files to documents, and documents to a training and a validation part."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slm.errors import UserError


@dataclass(frozen=True)
class Document:
    """One text and where it came from.

    Attributes:
        name: path relative to the corpus, so that it is the same on every machine.
        text: the content.
        is_part: True for a part of a longer document: no end-of-text belongs after it.
    """

    name: str
    text: str
    is_part: bool = False


@dataclass(frozen=True)
class Split:
    """Training and validation documents; none is in both."""

    train: list[Document]
    val: list[Document]


def read_documents(files: Sequence[Path]) -> list[Document]:
    """One document a file.

    Raises:
        UserError: a file is not UTF-8 text, or there is no text at all.
    """
    places = [Path(os.path.abspath(file)) for file in files]  # not resolved: a link is named by its own place
    root = os.path.commonpath([place.parent for place in places])
    documents = [
        Document(place.relative_to(root).as_posix(), _read_text(file))
        for place, file in zip(places, files, strict=True)
    ]
    filled = [document for document in documents if document.text]
    if not filled:
        where = files[0] if len(files) == 1 else root
        raise UserError(f"data.path: there is no text in '{where}' ({len(files)} empty file(s))")
    return filled


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
    parts = [Document(document.name, part, is_part=True) for part in (document.text[:cut], document.text[cut:])]
    if not all(part.text for part in parts):
        raise UserError(
            f"data: '{document.name}' has {len(document.text)} characters, too few to hold out a fraction of "
            f"{val_fraction} for validation; give more text or another data.val_fraction"
        )
    return Split([parts[0]], [parts[1]])


def _read_text(file: Path) -> str:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"data.path: cannot read '{file}' ({error.strerror})") from error
    if b"\0" in raw:
        raise UserError(f"data.path: '{file}' is binary, not text (it holds NUL bytes); leave it out")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        offset = error.start + len(raw) - len(error.object)  # Python does not count a byte-order mark
        raise UserError(
            f"data.path: '{file}' is not UTF-8 text (byte 0x{raw[offset]:02x} at offset {offset}); "
            "convert it to UTF-8 or leave it out"
        ) from error
