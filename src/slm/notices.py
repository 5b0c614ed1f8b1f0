"""What is said to the person at the terminal: on stderr, so that stdout holds results only."""

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def notice(text: str) -> None:
    """Print a line to stderr, on the first rank only."""
    if os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


def as_typed(settings: Mapping[str, Any]) -> str:
    """Settings as a command line has them: ``greedy=true, top_k=20``."""
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in settings.items())


def in_columns(rows: Sequence[Sequence[str]], to: Sequence[Callable[[str, int], str]] = ()) -> list[str]:
    """Rows of cells as aligned lines; `to` says how each column is (``str.rjust``), on the left by default."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    align = to or [str.ljust] * len(widths)
    return ["  ".join(one(cell, n) for one, cell, n in zip(align, row, widths, strict=True)).rstrip() for row in rows]


@functools.cache
def notice_once(text: str) -> None:
    """The same for what may be found several times in a process."""
    notice(text)
