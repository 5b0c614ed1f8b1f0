"""The corpus cut into units of work, and the first pass over them: the length and a hash of each document, faults."""

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slm.data.documents.source import PART_SIZE, Document, Source, Span, grouped
from slm.data.faults import Faults, OnBad
from slm.data.store.processes import Processes, Report
from slm.files.reading import read_json_object
from slm.files.writing import new_file

UNIT_BYTES = 16 << 20  # about how much of its files a unit holds: a few seconds of work, which is what a kill can cost
MOST_UNITS = 4096  # a larger corpus has larger units, so that the files of a store can all be mapped
RECORD = np.dtype(
    [("name", "<u8"), ("content", "<u8", 2), ("chars", "<u4"), ("bytes", "<u4"), ("begins", "?"), ("ends", "?")]
)
"""Of a document, or a part of a long one: hashes of its name and text, its length, and whether it is a part."""
_PACKED = struct.Struct("<Q16sII??")


class Piece(NamedTuple):
    """A span of the source of that number; `first`: it is the source's first one."""

    number: int
    source: Source
    span: Span
    first: bool


@dataclass(frozen=True)
class Unit:
    """Adjacent pieces: what one process reads at a time, and what makes one shard; `size` in bytes of files, about."""

    number: int
    pieces: tuple[Piece, ...]
    size: int

    def read(self, faults: Faults) -> Iterator[tuple[Piece, Document]]:
        for piece in self.pieces:
            for document in piece.source.read(piece.span, faults):
                yield piece, document


def units_of(sources: Sequence[Source]) -> list[Unit]:
    """All spans of all sources in order, grouped; how depends on the sources alone."""
    sized: list[tuple[Piece, int]] = []
    for number, source in enumerate(sources):
        spans, size = source.spans(), source.size()
        each = PART_SIZE if size is None else size // len(spans)  # what is no file has spans of about that size
        sized += [(Piece(number, source, span, first=i == 0), each) for i, span in enumerate(spans)]
    enough = max(UNIT_BYTES, sum(size for _, size in sized) // MOST_UNITS)
    return [
        Unit(number, tuple(piece for piece, _ in group), sum(size for _, size in group))
        for number, group in enumerate(grouped(sized, itemgetter(1), enough))
    ]


@dataclass(frozen=True)
class Scan:
    """What was found."""

    records: list[np.ndarray]  # of each unit, (n,) of dtype `RECORD`
    sources: list[dict[str, Any]]  # of each its ``name``, ``bytes`` (None unless a file), ``sha256`` and ``documents``
    faults: Faults


@dataclass(frozen=True)
class ScanTask:
    """Scans a unit into two files, of which the notes are written last."""

    unit: Unit
    notes: Path
    on_bad: OnBad

    @property
    def records(self) -> Path:
        return self.notes.with_suffix(".records")

    def run(self, report: Report) -> None:
        faults = Faults(self.on_bad)
        packed = bytearray()
        sources: dict[int, dict[str, Any]] = {}
        for piece in self.unit.pieces:
            found = sources.setdefault(piece.number, {"documents": 0})
            if piece.first:
                found["sha256"] = piece.source.sha256()
        for piece, document in self.unit.read(faults):
            packed += record_of(document)
            sources[piece.number]["documents"] += document.begins
        notes = json.dumps({"sources": list(sources.items()), "faults": faults.as_dict(), "forms": faults.forms})
        for place, content in ((self.records, packed), (self.notes, notes.encode())):
            with new_file(place) as file:
                file.write(content)
        report(self.unit.size)


def scan(units: Sequence[Unit], folder: Path, on_bad: OnBad, processes: Processes, report: Report) -> Scan:
    """Scan all units but those whose outcome `folder` holds. `UserError` for a fault, where they are refused."""
    folder.mkdir(exist_ok=True)
    tasks = [ScanTask(unit, folder / f"{unit.number:05d}.json", on_bad) for unit in units]
    left = [task for task in tasks if not task.notes.is_file()]
    report(sum(unit.size for unit in units) - sum(task.unit.size for task in left))
    for _ in processes.run(left, report):
        pass
    sources = {piece.number: piece.source for unit in units for piece in unit.pieces}
    told: list[dict[str, Any]] = [
        {"name": source.name, "bytes": source.size(), "sha256": None, "documents": 0} for source in sources.values()
    ]
    faults = Faults(on_bad)
    for task in tasks:
        notes = read_json_object(task.notes)
        faults.merge(notes["faults"])
        for form, count in notes["forms"].items():
            faults.recognise(form, count)
        for number, found in notes["sources"]:
            told[number]["documents"] += found["documents"]
            told[number]["sha256"] = told[number]["sha256"] or found.get("sha256")
    files = (task.records for task in tasks)
    empty = np.empty(0, RECORD)  # an empty file cannot be mapped
    records = [np.memmap(file, RECORD, mode="r") if file.stat().st_size else empty for file in files]
    return Scan(records, told, faults)


def record_of(document: Document) -> bytes:
    """Of dtype `RECORD`."""
    raw = document.text.encode()
    return _PACKED.pack(
        int.from_bytes(hashlib.sha256(document.name.encode()).digest()[:8], "big"),
        hashlib.blake2b(raw, digest_size=16).digest(),
        len(document.text),
        len(raw),
        document.begins,
        document.ends,
    )
