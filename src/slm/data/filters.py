"""Which documents are left out, as `conf/data/*.yaml` says it. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, fields

from slm.schema import Count, NonNegativeInt


@dataclass(frozen=True)
class Filters:
    """What is dropped of the documents that were read; how many is told.

    Attributes:
        dedupe: of documents with the very same text, all but the first.
        min_chars: documents of fewer characters.
        max_chars: documents of more characters; None for no limit.
    """

    dedupe: bool = False
    min_chars: NonNegativeInt = 0
    max_chars: Count | None = None

    def __post_init__(self) -> None:
        if self.max_chars is not None and self.min_chars > self.max_chars:
            raise ValueError(f"min_chars ({self.min_chars}) must be at most max_chars ({self.max_chars})")


FILTER_KEYS = tuple(field.name for field in fields(Filters))
