"""The corpus cut into units of work, and the first pass over them: the length and a hash of each document, faults."""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
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
_NOTHING_HELD: Mapping[str, Sequence[Source]] = {}


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
    part: str | None = None  # the split that all of it belongs to; None for a corpus that is to be divided

    def read(self, faults: Faults) -> Iterator[tuple[Piece, Document]]:
        for piece in self.pieces:
            for document in piece.source.read(piece.span, faults):
                yield piece, document


def units_of(sources: Sequence[Source], held: Mapping[str, Sequence[Source]] = _NOTHING_HELD) -> list[Unit]:
    """All spans of all sources in order, and then of those `held` out, grouped; how depends on the sources alone."""
    parts: list[tuple[str | None, Sequence[Source]]] = [(None, sources), *held.items()]
    marked = [(part, source) for part, of_part in parts for source in of_part]
    sized: dict[str | None, list[tuple[Piece, int]]] = {part: [] for part, _ in parts}
    for number, (part, source) in enumerate(marked):
        spans, size = source.spans(), source.size()
        each = PART_SIZE if size is None else size // len(spans)  # what is no file has spans of about that size
        sized[part] += [(Piece(number, source, span, first=i == 0), each) for i, span in enumerate(spans)]
    enough = max(UNIT_BYTES, sum(size for pieces in sized.values() for _, size in pieces) // MOST_UNITS)
    groups = [(part, group) for part, pieces in sized.items() for group in grouped(pieces, itemgetter(1), enough)]
    return [
        Unit(number, tuple(piece for piece, _ in group), sum(size for _, size in group), part)
        for number, (part, group) in enumerate(groups)
    ]


def is_small(units: Sequence[Unit]) -> bool:
    """Whether all of it is a unit's work at most, so that to start other processes costs more than they save."""
    return sum(unit.size for unit in units) <= UNIT_BYTES


@dataclass(frozen=True)
class Scan:
    """What was found."""

    records: list[np.ndarray]  # of each unit, (n,) of dtype `RECORD`
    # of each its ``name``, ``form``, ``bytes`` (None unless a file), ``sha256``, ``documents``, counts of ``faults``,
    # and its ``part`` where it is not to be divided
    sources: list[dict[str, Any]]
    faults: Faults
    begun: list[np.ndarray]  # of each unit, (n,): the number of the source of each document that begins there


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
            found = sources.setdefault(piece.number, {"documents": 0, "faults": {}})
            if piece.first:
                found["sha256"] = piece.source.sha256()
            own = Faults(self.on_bad)
            for document in piece.source.read(piece.span, own):
                packed += record_of(document)
                found["documents"] += document.begins
            add_counts(found["faults"], own.counts)
            faults.merge(own.as_dict())
            for form, count in own.forms.items():
                faults.recognise(form, count)
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
    told = {piece.number: _about(piece.source, unit.part) for unit in units for piece in unit.pieces}
    faults = Faults(on_bad)
    begun: list[np.ndarray] = []
    for task in tasks:
        notes = read_json_object(task.notes)
        faults.merge(notes["faults"])
        for form, count in notes["forms"].items():
            faults.recognise(form, count)
        for number, found in notes["sources"]:
            told[number]["documents"] += found["documents"]
            told[number]["sha256"] = told[number]["sha256"] or found.get("sha256")
            add_counts(told[number]["faults"], found.get("faults", {}))
        numbers, counts = zip(*((number, found["documents"]) for number, found in notes["sources"]), strict=True)
        begun.append(np.repeat(np.array(numbers, np.int64), counts))
    files = (task.records for task in tasks)
    empty = np.empty(0, RECORD)  # an empty file cannot be mapped
    records = [np.memmap(file, RECORD, mode="r") if file.stat().st_size else empty for file in files]
    return Scan(records, list(told.values()), faults, begun)


def add_counts(sums: dict[str, int], more: Mapping[str, int]) -> None:
    """Add to `sums`, which grows by what it has not."""
    for name, count in more.items():
        sums[name] = sums.get(name, 0) + count


def _about(source: Source, part: str | None) -> dict[str, Any]:
    counts: dict[str, Any] = {"sha256": None, "documents": 0, "faults": {}}
    own = {"part": part} if part else {}
    return {"name": source.name, "form": source.form, "bytes": source.size(), **counts, **own}


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
