"""The corpus cut into units of work: what one process reads at a time, and what makes one shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from slm.data.documents.corpus_files import Source
from slm.data.documents.document import PART_SIZE, Document
from slm.data.documents.reader import Span
from slm.data.faults import Faults

UNIT_BYTES = 16 << 20
"""About how much of its files a unit holds: a few seconds of work, which is what a kill can cost."""
MOST_UNITS = 4096
"""A larger corpus has larger units, so that the files of a store can all be mapped."""


@dataclass(frozen=True)
class Piece:
    """A span of a source.

    Attributes:
        number: of the source, in the corpus.
        source: what it is a part of.
        span: which part.
        first: it is the source's first one.
    """

    number: int
    source: Source
    span: Span
    first: bool


@dataclass(frozen=True)
class Unit:
    """Adjacent pieces.

    Attributes:
        number: its place in the order.
        pieces: in their order.
        size: bytes of files, about; for the progress.
    """

    number: int
    pieces: tuple[Piece, ...]
    size: int

    def read(self, faults: Faults) -> Iterator[tuple[Piece, Document]]:
        """Its documents, each with the piece it comes from."""
        for piece in self.pieces:
            for document in piece.source.read(piece.span, faults):
                yield piece, document


def units_of(sources: Sequence[Source], unit_bytes: int | None = None) -> list[Unit]:
    """All spans of all sources in order, grouped; how depends on the sources alone.

    Args:
        sources: the corpus.
        unit_bytes: a unit ends once it has so many; default `UNIT_BYTES`, and more for a corpus with which
            there would be more than `MOST_UNITS`.
    """
    spans = [source.spans() for source in sources]
    sizes = [_span_size(source, len(of_source)) for source, of_source in zip(sources, spans, strict=True)]
    whole = sum(size * len(of_source) for size, of_source in zip(sizes, spans, strict=True))
    enough = unit_bytes or max(UNIT_BYTES, whole // MOST_UNITS)
    units: list[Unit] = []
    pieces: list[Piece] = []
    held = 0
    for number, (source, size) in enumerate(zip(sources, sizes, strict=True)):
        for i, span in enumerate(spans[number]):
            pieces.append(Piece(number, source, span, first=i == 0))
            held += size
            if held >= enough:
                units.append(Unit(len(units), tuple(pieces), held))
                pieces, held = [], 0
    if pieces:
        units.append(Unit(len(units), tuple(pieces), held))
    return units


def _span_size(source: Source, n_spans: int) -> int:
    size = source.size()
    return PART_SIZE if size is None else size // n_spans  # what is no file has spans of about that size
