"""A bounded sample that is spread evenly over texts of unknown number and length, in one pass."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator

CHUNK_CHARS = 1024
MIN_BUDGET_BYTES = 4 * CHUNK_CHARS
"""A chunk always fits: a character is at most 4 bytes of UTF-8."""


def even_sample(texts: Iterable[str], budget_bytes: int) -> list[str]:
    """Chunks of `texts` in their order, at most `budget_bytes` (>= `MIN_BUDGET_BYTES`) of UTF-8 together.

    Every chunk draws a random priority, and the lowest that fit are kept; so each part of each text has the
    same chance, a long text does not crowd out short ones beyond its share, and memory holds the sample
    only. Seeded: the same texts give the same sample. All of `texts` comes back if it fits.
    """
    priorities = random.Random(0)
    kept: list[tuple[float, int, str, int]] = []  # a heap: (-priority, position, chunk, bytes)
    kept_bytes = 0
    for position, chunk in enumerate(_chunks(texts)):
        size = len(chunk.encode())
        heapq.heappush(kept, (-priorities.random(), position, chunk, size))
        kept_bytes += size
        while kept_bytes > budget_bytes:
            kept_bytes -= heapq.heappop(kept)[3]
    return [chunk for _, chunk in sorted((position, chunk) for _, position, chunk, _ in kept)]


def _chunks(texts: Iterable[str]) -> Iterator[str]:
    """Slices of `CHUNK_CHARS`; the word cut at a seam is noise beside the hundreds that are not."""
    for text in texts:
        for start in range(0, len(text), CHUNK_CHARS):
            yield text[start : start + CHUNK_CHARS]
