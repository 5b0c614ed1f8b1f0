"""What each source of a corpus gave, and what of it was left out and why: a row a source and form."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slm.data.config import PART_NAMES
from slm.data.faults import KINDS
from slm.data.store.scan import Scan, add_counts
from slm.data.store.selection import REASONS, Selection
from slm.notices import in_columns

MOST_ROWS = 20  # with more folders than these, a row is all of one form
_WORDS = {
    "empty": KINDS["empty"].counted,
    "too_short": "shorter than data.min_chars",
    "too_long": "longer than data.max_chars",
    "duplicates": "duplicates",
}
_COLUMNS = {"source": str.ljust, "form": str.ljust, "files": str.rjust, "documents": str.rjust, "bytes": str.rjust}


def source_rows(found: Scan, selection: Selection) -> list[dict[str, Any]]:
    """In order: ``source`` (a folder of the corpus, or a file by itself), ``part`` (None where it was divided),
    ``form``, ``files``, ``documents`` and ``bytes`` of UTF-8 text that are kept, ``left_out``: counts by reason."""
    keys = [(_folder(source["name"]), source.get("part"), source["form"]) for source in found.sources]
    if len(set(keys)) > MOST_ROWS:
        keys = [("", part, form) for _, part, form in keys]
    rows = list(dict.fromkeys(keys))
    numbers = np.array([rows.index(key) for key in keys])
    row_of = numbers[np.concatenate(found.begun)]  # of each document
    starts = np.flatnonzero(np.concatenate([records["begins"] for records in found.records]))
    sizes = np.add.reduceat(np.concatenate([records["bytes"] for records in found.records]), starts, dtype=np.int64)
    table = []
    for number, (folder, part, form) in enumerate(rows):
        own = [source for source, row in zip(found.sources, numbers.tolist(), strict=True) if row == number]
        why = np.where(row_of == number, selection.why, len(REASONS) + 1)  # of others: none of the reasons
        left_out: dict[str, int] = {}
        for source in own:
            add_counts(left_out, {KINDS[kind].counted: n for kind, n in source["faults"].items()})
        counts = np.bincount(why, minlength=len(REASONS) + 2).tolist()
        add_counts(left_out, {_WORDS[reason]: counts[code] for code, reason in REASONS.items() if counts[code]})
        name = own[0]["name"] if len(own) == 1 else folder or "."
        kept = {"documents": counts[0], "bytes": int(sizes[why == 0].sum())}
        table.append({"source": name, "part": part, "form": form, "files": len(own), **kept, "left_out": left_out})
    return table


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows in columns, for people, below their titles."""
    return in_columns([[*_COLUMNS, "left out"], *map(_cells, rows)], [*_COLUMNS.values(), str.ljust])


def _cells(row: Mapping[str, Any]) -> list[str]:
    part = f" ({PART_NAMES[row['part']]})" if row["part"] else ""
    left_out = ", ".join(f"{why}: {count:,}" for why, count in row["left_out"].items())
    return [f"{row['source']}{part}", row["form"], *(f"{row[name]:,}" for name in list(_COLUMNS)[2:]), left_out]


def _folder(name: str) -> str:
    folder, slash, _ = name.partition("/")
    return folder + slash if slash else ""
