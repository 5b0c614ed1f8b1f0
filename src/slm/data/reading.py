"""How text is read, as `conf/data/*.yaml` says it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from slm.data.faults import OnBad
from slm.errors import did_you_mean
from slm.registry import READERS
from slm.schema import Count, Text

AUTO = "auto"


@dataclass(frozen=True)
class Reading:
    """How the files of a corpus are read.

    Attributes:
        format: a reader of the registry, or "auto": by each file's ending.
        field: of a record, the one that holds the text.
        on_bad: what becomes of what is no text; see `slm.data.faults`.
        max_record_bytes: a longer record is a fault, so that memory is bounded.
    """

    format: Text = AUTO
    field: Text = "text"
    on_bad: OnBad = "refuse"
    max_record_bytes: Count = 32 << 20

    def __post_init__(self) -> None:
        known = [AUTO, *READERS.names()]
        if self.format not in known:
            raise ValueError(
                f"there is no format '{self.format}'{did_you_mean(self.format, known)} (known: {', '.join(known)})"
            )


READING_KEYS = tuple(field.name for field in fields(Reading))
