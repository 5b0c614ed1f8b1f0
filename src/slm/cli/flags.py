"""What begins with a dash: Hydra's flags, and those that it does not have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from slm.errors import UserError

MULTIRUN = frozenset(("-m", "--multirun"))


def config_dir(arguments: Sequence[str]) -> Path | None:
    """The folder given with ``--config-dir`` (``-cd``), if any."""
    for index, argument in enumerate(arguments):
        flag, separator, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            return Path(value if separator else arguments[index + 1] if index + 1 < len(arguments) else "")
    return None


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags (with their values) and settings, each in their order.

    Raises:
        UserError: a flag is unknown; Hydra's own answer would be a page of usage.
    """
    parser = _parser()
    takes_value = {flag for action in parser._actions if action.nargs != 0 for flag in action.option_strings}
    flags: list[str] = []
    settings: list[str] = []
    for argument in arguments:
        is_value = bool(flags) and flags[-1] in takes_value
        (flags if argument.startswith("-") or is_value else settings).append(argument)
    parsed = parser.parse_args([*flags, *settings])
    if parsed.resolve and parsed.cfg is None:
        raise UserError("--resolve is read only with --cfg; type --cfg job --resolve")
    return flags, settings


def unknown_flags(arguments: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Flags that do not exist, and the arguments without them.

    Each is given as it was typed and as the setting it looks like: ``--max-steps 9`` and ``max-steps=9``.
    """
    options = [option for action in _parser()._actions for option in action.option_strings]
    found: list[tuple[str, str]] = []
    others: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        name, is_setting, value = argument.partition("=")
        if not name.startswith("-") or any(option.startswith(name) for option in options):
            others.append(argument)
            continue
        follows = not is_setting and bool(left) and not left[0].startswith("-") and "=" not in left[0]
        if follows:
            value = left.pop(0)
            argument = f"{argument} {value}"
        found.append((argument, f"{name.lstrip('-')}={value if is_setting or follows else 'true'}"))
    return found, others


def _parser() -> argparse.ArgumentParser:
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; settings are typed without dashes, key=value (--help lists them)")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    return parser
