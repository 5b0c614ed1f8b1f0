"""slm-push: a model onto the Hugging Face hub, or another of its kind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.given_model import BEST
from slm.cli.model_writers import ExportSettings, writer_of
from slm.cli.result import Result
from slm.errors import UserError
from slm.schema import FORBID_EXTRA, Flag, Text, checked, together

_MAIN = "main"


@dataclass(frozen=True)
class _Settings:
    __pydantic_config__ = FORBID_EXTRA
    run: Text | int | None
    model_dir: Text | int | None
    repo: Text
    checkpoint: Text
    revision: Text
    revisions: Flag
    private: Flag
    license: Text | None
    dtype: Any  # as of `ExportSettings`, which checks it
    message: Text | None
    plugins: Any

    def __post_init__(self) -> None:
        if (self.run is None) == (self.model_dir is None):
            raise ValueError("give run=PATH (a run folder) or model_dir=PATH (a bundle, a Hugging Face folder, …)")
        if self.revisions and self.revision != _MAIN:
            raise ValueError("revisions=true gives each branch its own name; leave revision out")
        if self.run is None and self.checkpoint != BEST:
            raise ValueError("checkpoint is one of a run's; give run=PATH, or leave it out")

    @property
    def source(self) -> Path:
        return Path(str(self.model_dir if self.run is None else self.run)).expanduser()

    def export(self, checkpoint: str) -> ExportSettings:
        """Of one of its states, for transformers."""
        given = {"source": str(self.source), "checkpoint": checkpoint, "license": self.license, "dtype": self.dtype}
        others = {"out": self.repo, "to": "hf", "base": None, "format": None, "mirror": None, "quantize": None}
        return checked(ExportSettings, {**given, **others, "plugins": self.plugins})


def push(_: dict[str, Any], settings: _Settings) -> Result:
    """The command's task. Branches go first, so that main, which people look at, is there once all are."""
    from slm.weights.export.hub import open_repository

    writers = _writers(settings)
    repository = open_repository(settings.repo, settings.private)
    name = repository.name.rpartition("/")[2]
    commits = {}
    with tempfile.TemporaryDirectory(prefix="slm.push.") as place:
        for revision, files in writers.items():
            folder = files if isinstance(files, Path) else Path(place) / revision / name
            if not isinstance(files, Path):
                folder.parent.mkdir()
                files(folder)
            message = settings.message or f"{revision}, by slm-push"
            commits[revision] = repository.upload(folder, revision, message)
    return Result({"repo": repository.name, "url": repository.url, "revisions": commits})


def _writers(settings: _Settings) -> Mapping[str, Path | Callable[[Path], Any]]:
    """Of each branch the folder that is uploaded, or what writes it."""
    from slm.training.run.save_point_names import revisions_of
    from slm.weights.export.hub import revisions_in
    from slm.weights.open_model import find_source

    if not settings.source.exists():
        raise UserError(
            f"there is nothing at '{settings.source}'; give a run folder (run=…) or a model's (model_dir=…)"
        )
    if settings.revisions and (made := revisions_in(settings.source)):
        return made
    if settings.run is None and find_source(settings.source).format == "hf":
        if settings.revisions:
            raise UserError(
                f"revisions: '{settings.source}' holds one state alone; give a run, or what to=revisions made"
            )
        return {settings.revision: settings.source}  # as it is
    names = {**revisions_of(settings.source), _MAIN: settings.checkpoint} if settings.revisions else {}
    names = names or {settings.revision: settings.checkpoint}
    first = writer_of(settings.export(settings.checkpoint))[0]  # refuses, before anything is on the hub
    return {
        revision: first if checkpoint == settings.checkpoint else partial(_write, settings, checkpoint)
        for revision, checkpoint in names.items()
    }


def _write(settings: _Settings, checkpoint: str, folder: Path) -> None:
    writer_of(settings.export(checkpoint))[0](folder)


def _checked(values: dict[str, Any]) -> _Settings:
    from slm.training.run_config import import_plugins

    settings: _Settings = together(lambda: checked(_Settings, values), lambda: import_plugins(values["plugins"]))[0]
    settings.export(settings.checkpoint)  # checks what is left
    return settings


main = entry_point(Command("push", push, _checked, paths=("run", "model_dir")), __name__)
