"""Runs that a command line names: run folders and folders that hold some, or a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slm.errors import UserError
from slm.schema import FORBID_EXTRA, Text


@dataclass(frozen=True)
class NamedRuns:
    """The settings that name them, and those of them that are meant."""

    __pydantic_config__ = FORBID_EXTRA
    runs: Text | list[Text]
    study: Text | None
    where: Text | None

    @property
    def folders(self) -> list[Path]:
        named = [self.runs] if isinstance(self.runs, str) else self.runs
        return [Path(folder).expanduser() for folder in (named if self.study is None else [self.study])]

    def check(self, to_do: str) -> None:
        """`UserError` where they are named twice, or not at all and there is nothing `to_do`."""
        if self.study is not None and self.runs:
            raise UserError("runs and study are both given; name run folders, or study=PATH")
        if not self.folders:
            raise UserError(f"nothing to {to_do}: name run folders or folders of runs, or study=PATH")
