"""What a command is, and how one ends."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from slm.cli.command_line import CommandLine, quote, with_escapes
from slm.cli.help import groups_of

USER_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130
STOPPED_STATUS = 75  # EX_TEMPFAIL: the same again goes on


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        config_name: its primary config, whose comments are its ``--help``.
        task: is called with the composed configuration; returns what a sweeper may minimise.
        check: raises `UserError` for a configuration that the task would refuse, before any work.
        rewrite: the command line, flags first, as Hydra is to get it.
        literal: keys whose values are taken as they are typed, with no need to quote them for Hydra
            (except in a multirun, where a comma sweeps).
        paths: the same, but ``null`` and a list, ``[a,b]``, keep their meaning.
    """

    config_name: str
    task: Callable[[Any], Any]
    check: Callable[[Any], object]
    rewrite: Callable[[list[str]], list[str]] = list
    literal: Collection[str] = ()
    paths: Collection[str] = ()

    @functools.cached_property
    def groups(self) -> list[str]:
        """The configuration groups that it takes."""
        return groups_of(self.config_name)

    def quoted(self, line: CommandLine) -> list[str]:
        """The settings of a command line in Hydra's grammar."""
        meant = [with_escapes(setting, {*self.literal, *self.paths}) for setting in line.settings]
        return meant if line.is_multirun else [quote(setting, self.literal, self.paths) for setting in meant]


def fail(name: str, message: str, status: int = USER_ERROR_STATUS) -> None:
    """Say on stderr what went wrong with the command of that name, and exit."""
    print("\n".join(f"{name}: {line}" for line in message.splitlines()), file=sys.stderr)
    sys.exit(status)
