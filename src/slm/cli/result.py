"""What a command comes to: one JSON object on stdout, as `docs/json.md` says, or words for a person."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slm.files.plain_json import without_nan


@dataclass(frozen=True)
class Result:
    """Of a task, to be printed when it is done."""

    content: Mapping[str, Any]  # of plain types
    words: str | None = None  # for a person, in place of it; None: a line a figure
    loss: float | None = None  # what a sweeper minimises
    status: int = 0  # the command's exit status
    then: Callable[[], None] | None = None  # what the command goes on with, once this is printed

    def text(self, as_json: bool) -> str:
        if as_json:
            return json.dumps(without_nan(self.content), allow_nan=False, ensure_ascii=False)
        return _lines(self.content) if self.words is None else self.words


@contextlib.contextmanager
def nothing_else_on_stdout(as_json: bool) -> Iterator[None]:
    """Whatever prints meanwhile (a callback of the user's own, a library) is sent to stderr."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def asks_for_json(words: list[str]) -> bool:
    """Whether a command line does, before it is read by anybody."""
    return any(word.lower() in ("json=true", "+json=true") for word in words)


def _lines(content: Mapping[str, Any]) -> str:
    width = max(map(len, content), default=0)
    return "\n".join(f"{name:<{width}}  {_said(value)}" for name, value in content.items())


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
