"""`--help`, written for a person. Imports neither Hydra nor torch, so it answers at once."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

_WIDTH = 100
_ESCAPES = (
    "As in YAML, \\n and \\t in double quotes are a line's end and a tab (the shell needs quotes around them: "
    "key='\"a\\n\"'). Elsewhere, in a path and in a prompt a backslash is itself."
)


@dataclass(frozen=True)
class Help:
    """What a command's `--help` says.

    Attributes:
        summary: what the command does, a sentence or two.
        usage: the line after the command's name.
        examples: (command line, what it does) pairs.
        settings: (key, meaning) of those most often set.
        groups: the configuration groups it takes.
        statuses: (exit status, meaning) pairs, where there are more than 0, 1 and 2.
    """

    summary: str
    usage: str
    examples: Sequence[tuple[str, str]]
    settings: Sequence[tuple[str, str]]
    groups: Sequence[str] = ()
    statuses: Sequence[tuple[str, str]] = ()


def render(command: str, text: Help, config_dir: Path | None) -> str:
    """The whole help text of `command`; choices of groups include those in `config_dir`."""
    parts = [textwrap.fill(text.summary, _WIDTH), f"usage: {command} {text.usage}"]
    parts.append("examples:\n" + "\n".join(f"  {line}\n      {meaning}" for line, meaning in text.examples))
    if text.groups:
        parts.append("groups (group=choice):\n" + _table([(g, ", ".join(choices(g, config_dir))) for g in text.groups]))
    parts.append("settings (key=value):\n" + _table(text.settings))
    parts.append(textwrap.fill(_ESCAPES, _WIDTH))
    if text.statuses:
        parts.append("exit status:\n" + _table(text.statuses))
    parts.append(
        "more:\n"
        + _table(
            [
                ("--explain [KEY …]", "show each value (below KEY) and the file or setting that set it"),
                ("--cfg job --resolve", "show the whole composed configuration"),
                ("--config-dir DIR", "a folder of your own groups and choices"),
                ("--hydra-help", "Hydra's own flags"),
            ]
        )
    )
    return "\n\n".join(parts)


def choices(group: str, config_dir: Path | None = None) -> list[str]:
    """Names of the choices of a configuration group, sorted."""
    folders: list[Any] = [files("slm.conf").joinpath(group)]
    if config_dir is not None:
        folders.append(config_dir / group)
    found = {entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir()}
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def _table(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in rows) + 4
    return "\n".join(
        textwrap.fill(
            right,
            _WIDTH,
            initial_indent=f"  {left}".ljust(width),
            subsequent_indent=" " * width,
            break_on_hyphens=False,
        )
        for left, right in rows
    )
