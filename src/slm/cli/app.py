"""What every command shares: Hydra around a task, and a user's mistake as one clear message, status 2."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import slm
from slm.cli.flags import MULTIRUN, config_dir, split_flags, unknown_flags
from slm.cli.help import Help, choices, render
from slm.cli.quoting import as_typed, quote, with_escapes
from slm.errors import Stopped, UserError

USER_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130
EXPLAIN = "--explain"
STOPPED_STATUS = 75  # EX_TEMPFAIL: the same again goes on


@dataclass(frozen=True)
class App:
    """A command.

    Attributes:
        config_name: its primary config.
        task: is called with the composed configuration; returns what a sweeper may minimise.
        help_text: for ``--help``.
        check: raises `UserError` for a configuration that the task would refuse, before any work.
        rewrite: the command line, flags first, as Hydra is to get it.
        literal: keys whose values are taken as they are typed, with no need to quote them for Hydra
            (except in a multirun, where a comma sweeps).
        paths: the same, but ``null`` and a list, ``[a,b]``, keep their meaning.
    """

    config_name: str
    task: Callable[[Any], Any]
    help_text: Help
    check: Callable[[Any], object]
    rewrite: Callable[[list[str]], list[str]] = list
    literal: Collection[str] = ()
    paths: Collection[str] = ()

    def quoted(self, arguments: Sequence[str]) -> list[str]:
        """The command line in Hydra's grammar."""
        meant = [with_escapes(argument, {*self.literal, *self.paths}) for argument in arguments]
        if MULTIRUN & set(arguments):
            return meant
        return [quote(argument, self.literal, self.paths) for argument in meant]


def run_app(app: App) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and call the task; a mistake ends with status 2."""
    try:
        _run(app, Path(sys.argv[0]).name, sys.argv[1:])
        sys.stdout.flush()  # at the end of the process nobody could take the error
    except BrokenPipeError:
        _write_nowhere()


def _run(app: App, command: str, typed: list[str]) -> None:
    if {"-h", "--help"} & set(typed):
        print(render(command, app.help_text, config_dir(typed)))
        return
    if "--version" in typed:
        print(f"{command} {slm.__version__}")
        return
    wants_explanation = EXPLAIN in typed
    typed = [argument for argument in typed if argument != EXPLAIN]
    try:
        flags, settings = split_flags(typed)
        if wants_explanation:
            typed = [argument for argument in typed if argument in flags or _is_setting(argument)]
            _explain_settings(app, flags, settings)
            return
        _run_hydra(app, app.rewrite([*flags, *settings]))  # Hydra takes no flag between two settings
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as interruption:
        fail(command, str(interruption) or "interrupted", INTERRUPTED_STATUS)
    except Stopped as stop:
        fail(command, str(stop), STOPPED_STATUS)
    except Exception as error:
        message = _explain(error)
        if message is None:
            raise
        fail(command, _all_mistakes(app, typed, error, message))


def _is_setting(argument: str) -> bool:
    return "=" in argument or argument.startswith("~")


def _explain_settings(app: App, flags: Sequence[str], settings: Sequence[str]) -> None:
    """Print what set each value; of `settings`, those without a value name the keys to show."""
    from slm.cli.explain import explanation

    if MULTIRUN & set(flags):
        raise UserError(f"{EXPLAIN} shows one configuration; leave --multirun out, and give each setting one value")
    typed = [argument for argument in settings if _is_setting(argument)]
    only = [argument for argument in settings if not _is_setting(argument)]
    rewritten = app.quoted(split_flags(app.rewrite([*flags, *typed]))[1])
    by_hand = {*app.quoted(typed), *(f"+{argument}" for argument in app.quoted(typed))}
    print(explanation(app.config_name, rewritten, by_hand, only, config_dir(flags)))


def _all_mistakes(app: App, typed: Sequence[str], error: Exception, message: str) -> str:
    """`message`, which says what was found first, and all else that is wrong with what was typed."""
    from slm.cli.mistakes import find_mistakes

    flags, others = unknown_flags(typed)
    own = config_dir(others)
    if own is not None and not own.is_dir():
        return message
    try:
        settings = app.rewrite(split_flags(others)[1])
    except UserError:
        settings = [argument for argument in others if not argument.startswith("-")]
    lines = find_mistakes(app, app.quoted(settings), flags, own, bool(MULTIRUN & set(others)))
    is_among_them = flags if isinstance(error, UserError) else lines
    return "\n".join(lines if is_among_them else dict.fromkeys([*message.splitlines(), *lines]))


def fail(command: str, message: str, status: int = USER_ERROR_STATUS) -> None:
    """Say what went wrong on stderr and exit."""
    print("\n".join(f"{command}: {line}" for line in message.splitlines()), file=sys.stderr)
    sys.exit(status)


def _write_nowhere() -> None:
    """Whoever read our output has had enough; Python would complain once more when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run_hydra(app: App, arguments: Sequence[str]) -> None:
    import hydra
    from hydra.errors import HydraException

    command = sys.argv[0]
    started = False

    def guarded(cfg: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from slm.cli.failed_jobs import job_failed

        nonlocal started
        started = True
        one_of_many = HydraConfig.get().mode == RunMode.MULTIRUN
        _let_ranks_follow(command, arguments, [*app.literal, *app.paths])
        try:
            value = app.task(cfg)
            is_loss = not isinstance(value, float) or math.isfinite(value)
            return value if is_loss or not one_of_many else None  # sweepers fail over nan
        except BrokenPipeError:
            _write_nowhere()
        except Exception as error:
            message = _explain(error)
            if message is not None:
                message = _with_suggestions(app, message, cfg, config_dir(arguments))
            if one_of_many:
                job_failed(message, error)
                return None
            if message is None:
                raise
            _remove_empty(Path(HydraConfig.get().runtime.output_dir))
            fail(Path(command).name, message)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of ending in Hydra's report
    sys.argv = [command, *app.quoted(arguments)]
    guarded.__module__, guarded.__qualname__ = app.task.__module__, app.task.__qualname__
    try:
        hydra.main(version_base="1.3", config_path="pkg://slm.conf", config_name=app.config_name)(guarded)()
    except OSError as error:
        if started or error.errno is None:  # Hydra's word for a missing config is an OSError too
            raise
        raise UserError(f"cannot make the run folder '{error.filename}' ({error.strerror})") from None
    except UnboundLocalError as error:
        _raise_what_hydra_hides(error)
    except ValueError as error:
        if "No trials are completed" not in str(error):
            raise
        raise UserError("no job came to a validation loss that the sweeper could minimise") from None
    except TypeError as error:
        if started:
            raise
        raise HydraException(str(error)) from error  # a group's choice that is no text comes out of Hydra as this


def _raise_what_hydra_hides(error: UnboundLocalError) -> NoReturn:
    """Hydra closes a packaged YAML file that was not opened yet, where Ctrl-C or the system kept it from being."""
    hidden = error.__context__
    if isinstance(hidden, OSError):
        raise UserError(f"cannot read '{hidden.filename}' ({hidden.strerror})") from None
    raise hidden if isinstance(hidden, KeyboardInterrupt) else error


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


def _with_suggestions(app: App, message: str, cfg: Any, own: Path | None) -> str:
    """`message` with the nearest settings, wherever they are, for a key that nobody reads."""
    if "unknown key '" not in message:
        return message
    from slm.cli.mistakes import vocabulary, with_suggestion

    known = vocabulary(cfg, {group: choices(group, own) for group in app.help_text.groups})
    return "\n".join(with_suggestion(line, known) for line in message.splitlines())


def _explain(error: Exception) -> str | None:
    """A user's mistake in our words, also one that Hydra or OmegaConf found; None for any other error."""
    if isinstance(error, UserError):
        return str(error)
    from slm.cli.compose_errors import explain

    return explain(error)
