"""What every command shares: Hydra around a task, and a user's mistake as one clear message, status 2."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

import slm
from slm.cli.help import Help, render
from slm.errors import Stopped, UserError

USER_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130
STOPPED_STATUS = 75  # EX_TEMPFAIL: the same again goes on


def run_app(
    config_name: str,
    task: Callable[[Any], Any],
    help_text: Help,
    arguments: Sequence[str] | None = None,
    literal: Collection[str] = (),
    paths: Collection[str] = (),
) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and call ``task(cfg)``.

    Args:
        config_name: the command's primary config.
        task: returns what a sweeper may minimise.
        help_text: for ``--help``.
        arguments: the command line after the program's name; default `sys.argv`'s.
        literal: keys whose values are taken as they are typed, with no need to quote them for Hydra
            (except in a multirun, where a comma sweeps).
        paths: the same, but ``null`` and a list, ``[a,b]``, keep their meaning.
    """
    command = Path(sys.argv[0]).name
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(typed):
        print(render(command, help_text, config_dir(typed)))
        return
    if "--version" in typed:
        print(f"{command} {slm.__version__}")
        return
    try:
        flags, settings = split_flags(typed)
        typed = [*flags, *settings]  # Hydra takes no flag between two settings
        _run_hydra(config_name, task, typed, literal, paths)
    except BrokenPipeError:
        _write_nowhere()
    except KeyboardInterrupt as interruption:
        fail(command, str(interruption) or "interrupted", INTERRUPTED_STATUS)
    except Stopped as stop:
        fail(command, str(stop), STOPPED_STATUS)
    except Exception as error:
        message = _explain(error, config_name, typed)
        if message is None:
            raise
        fail(command, message)


def fail(command: str, message: str, status: int = USER_ERROR_STATUS) -> None:
    """Say what went wrong on stderr and exit."""
    print("\n".join(f"{command}: {line}" for line in message.splitlines()), file=sys.stderr)
    sys.exit(status)


def _write_nowhere() -> None:
    """Whoever read our output has had enough; Python would complain once more when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; settings are typed without dashes, key=value (--help lists them)")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    takes_value = {flag for action in parser._actions if action.nargs != 0 for flag in action.option_strings}
    flags: list[str] = []
    settings: list[str] = []
    for argument in arguments:
        is_value = bool(flags) and flags[-1] in takes_value
        (flags if argument.startswith("-") or is_value else settings).append(argument)
    parser.parse_args([*flags, *settings])
    return flags, settings


def _run_hydra(
    config_name: str,
    task: Callable[[Any], Any],
    arguments: Sequence[str],
    literal: Collection[str],
    paths: Collection[str],
) -> None:
    import hydra

    command = sys.argv[0]
    quoted_arguments = arguments
    if not {"-m", "--multirun"} & set(arguments):
        quoted_arguments = [_quote(argument, literal, paths) for argument in arguments]

    started = False

    def guarded(cfg: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        nonlocal started
        started = True
        _let_ranks_follow(command, arguments, [*literal, *paths])
        try:
            return task(cfg)
        except BrokenPipeError:
            _write_nowhere()
        except Exception as error:
            message = _explain(error, config_name, arguments)
            if message is None:
                raise
            _remove_empty(Path(HydraConfig.get().runtime.output_dir))
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise UserError(message) from None  # the launcher reports it with the job it belongs to
            fail(Path(command).name, message)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of ending in Hydra's report
    sys.argv = [command, *quoted_arguments]
    guarded.__module__, guarded.__qualname__ = task.__module__, task.__qualname__
    try:
        hydra.main(version_base="1.3", config_path="pkg://slm.conf", config_name=config_name)(guarded)()
    except OSError as error:
        if started or error.errno is None:  # Hydra's word for a missing config is an OSError too
            raise
        raise UserError(f"cannot make the run folder '{error.filename}' ({error.strerror})") from None


def _let_ranks_follow(command: str, arguments: Sequence[str], unquoted: Collection[str]) -> None:
    """Leave in `sys.argv` and Hydra's config what Lightning starts the further ranks of this job with.

    It starts this command again, in `hydra.run.dir`: each rank must read what the user typed, and in a
    multirun what this job is, in this job's folder.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import open_dict, read_write

    job: Any = HydraConfig.get()
    if job.mode != RunMode.MULTIRUN:
        sys.argv = [command, *arguments]
        return
    own = config_dir(arguments)
    flags = [] if own is None else [f"--config-dir={own}"]
    sys.argv = [command, *flags, *as_typed(job.overrides.task, unquoted)]
    with read_write(job), open_dict(job):
        job.run.dir = job.runtime.output_dir


def _remove_empty(folder: Path) -> None:
    """Take back the folder that Hydra made ahead of the task, if it is empty, and below here its parents too."""
    here = Path.cwd()
    while folder != here and folder.is_dir() and not any(folder.iterdir()):
        try:
            folder.rmdir()
        except OSError:  # where it lies cannot be written to
            return
        folder = folder.parent
        if here not in folder.parents:
            return


def _quote(argument: str, literal: Collection[str], paths: Collection[str]) -> str:
    """`key=value` with the value quoted for Hydra's grammar, if its key is to be taken as typed."""
    key, separator, value = argument.partition("=")
    means_more = value == "null" or (value.startswith("[") and value.endswith("]"))
    name = key.lstrip("+")
    if separator and (name in literal or (name in paths and not means_more)):
        return f"{key}={quoted(value)}"
    return argument


def as_typed(overrides: Sequence[str], keys: Collection[str]) -> list[str]:
    """Overrides in Hydra's grammar with the text values of `keys` as one types them: no quotes, no escapes."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    typed = []
    for override in overrides:
        key = override.partition("=")[0]
        value = parser.parse_override(override).value() if key.lstrip("+") in keys else None
        typed.append(f"{key}={_without_escapes(value)}" if isinstance(value, str) else override)
    return typed


def _without_escapes(value: str) -> str:
    """A string as OmegaConf reads it, interpolations left as they are."""
    return re.sub(r"((?:\\\\)*)\\\$\{", lambda found: "\\" * (len(found[1]) // 2) + "${", value)


def quoted(value: str) -> str:
    """`value` as a single-quoted string of Hydra's override grammar that means exactly `value`."""
    # for OmegaConf "${" begins an interpolation unless an odd number of backslashes stands before it
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    out: list[str] = []
    backslashes = 0
    for character in escaped:
        if character == "\\":
            backslashes += 1
            continue
        # backslashes are literal unless a quote follows; then each must be doubled
        out.append("\\" * (backslashes * 2 + 1 if character == "'" else backslashes) + character)
        backslashes = 0
    out.append("\\" * (backslashes * 2))
    return "'" + "".join(out) + "'"


def _explain(error: Exception, config_name: str, arguments: Sequence[str]) -> str | None:
    """A user's mistake in our words, also one that Hydra or OmegaConf found; None for any other error."""
    if isinstance(error, UserError):
        return str(error)
    from slm.cli.compose_errors import explain

    return explain(error, config_name, arguments)
