"""What every command shares: Hydra around a task, and a user's mistake as one clear message, status 2."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slm
from slm.cli.command import (
    BUG_STATUS,
    INTERRUPTED_STATUS,
    STOPPED_STATUS,
    Command,
    CommandLine,
    as_typed,
    fail,
    print_failure,
    read,
)
from slm.cli.help import render
from slm.cli.result import Result, nothing_else_on_stdout
from slm.errors import Stopped, UserError, refuse

if TYPE_CHECKING:
    from omegaconf import DictConfig

    Start = Callable[[Callable[[DictConfig], Any]], Any]

EXPLAIN = "--explain"
# with these no setting is read, or not one of the command's own primary config
_OTHER_CONFIG = ("--config-name", "-cn", "--config-path", "-cp", "--experimental-rerun")
_CHECKED_BY_HYDRA = ("--hydra-help", "--shell-completion", "-sc", *_OTHER_CONFIG)
_OF_A_JOB = ("--config-dir=", "-cd=", "--run", "-r")
_CALLBACKS = {"sweep_table"}  # of conf/hydra, which look at sweeps alone


def entry_point(command: Command, module: str) -> Callable[[], None]:
    """What a console script calls; ``python -m`` names the `module` ``__main__``, and then it is called at once."""
    main = partial(run_app, command)
    if module == "__main__":
        main()
    return main


def run_app(command: Command) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and call the task; a mistake ends with status 2."""
    try:
        _run(command, sys.argv[1:])
        sys.stdout.flush()  # at the end of the process nobody could take the error
    except BrokenPipeError:
        _write_nowhere()
    except KeyboardInterrupt as interruption:
        fail(str(interruption) or "interrupted", INTERRUPTED_STATUS)
    except Stopped as stop:
        fail(str(stop), STOPPED_STATUS, **stop.facts)
    except UserError as error:
        fail(str(error))
    except UnboundLocalError as error:  # Hydra closes a packaged YAML file that was not opened yet
        hidden = error.__context__
        if isinstance(hidden, KeyboardInterrupt):
            fail("interrupted", INTERRUPTED_STATUS)
        if isinstance(hidden, OSError):
            fail(f"cannot read '{hidden.filename}' ({hidden.strerror})")
        raise
    except Exception as error:
        from slm.cli.composition import explain

        if (message := explain(error)) is None:
            print_failure(f"{type(error).__name__}: {error}", BUG_STATUS)
            raise
        fail(message)


def _run(command: Command, typed: list[str]) -> None:
    line = read([word for word in typed if word != EXPLAIN])
    if line.has("-h", "--help"):
        print(render(command.config_name, line.config_dir))
    elif line.has("--version"):
        print(f"{Path(sys.argv[0]).name} {slm.__version__}")
    elif EXPLAIN in typed:
        _print_explanation(command, line)
    else:
        line, problems = rewritten(command, line)
        start = None if problems else _composed(command, line)
        if start is None:
            refuse_mistakes(command, line, problems)
        _run_hydra(command, line, start)


def rewritten(command: Command, typed: CommandLine) -> tuple[CommandLine, list[str]]:
    """The command line as the command rewrites it; as it is, and what is wrong with it, where it cannot be."""
    try:
        return replace(read(command.rewrite(typed.known)), unknown=typed.unknown), []
    except UserError as error:
        return typed, str(error).splitlines()


def _composed(command: Command, line: CommandLine) -> Start | None:
    """What starts the job that a rewritten command line comes to, composed this once. None if it is wrong, and for what
    Hydra is to start: a sweep, what its flags ask for, a job with callbacks of the user's own."""
    from hydra.types import RunMode

    from slm.cli.composition import OF_HYDRA, Composition

    asks_hydra = [one for one in line.flags if not one.startswith(_OF_A_JOB)]
    asks_hydra += [one for one in line.settings if one.lstrip("+~").startswith("hydra")]
    if asks_hydra or line.unknown or not (line.config_dir or Path()).is_dir():
        return None
    try:
        composition = Composition(command.config_name, line.config_dir)
        cfg = composition.job(command.quoted(line))
    except (UserError, *OF_HYDRA):
        return None
    is_ours = cfg.hydra.mode != RunMode.MULTIRUN and set(cfg.hydra.callbacks or ()) <= _CALLBACKS
    return partial(composition.start, cfg) if is_ours else None


def refuse_mistakes(command: Command, line: CommandLine, problems: list[str]) -> None:
    """Raise `UserError` with `problems` and all else that is wrong with a command line, but for the values."""
    if line.config_dir is not None and not line.config_dir.is_dir():
        raise UserError(f"Additional config directory '{line.config_dir}' not found; it is a folder of YAML files")
    elsewhere = line.has(*_CHECKED_BY_HYDRA) or any(one.startswith("hydra.searchpath=") for one in line.settings)
    if line.unknown or (line.settings and not elsewhere):
        from slm.cli.mistakes import find_mistakes

        problems = [*problems, *find_mistakes(command, line)]
    refuse(problems)


def _print_explanation(command: Command, typed: CommandLine) -> None:
    from slm.cli.composition import Composition
    from slm.cli.explain import explanation

    if typed.is_multirun:
        raise UserError(f"{EXPLAIN} shows one configuration; leave --multirun out, and give each setting one value")
    settings = [word for word in typed.settings if "=" in word or word.startswith("~")]
    only = [word for word in typed.settings if word not in settings]
    typed = replace(typed, settings=settings)
    line, problems = rewritten(command, typed)
    refuse_mistakes(command, line, problems)
    by_hand = {f"{plus}{setting}" for setting in command.quoted(typed) for plus in ("", "+")}
    print(explanation(Composition(command.config_name, line.config_dir), command.quoted(line), by_hand, only))


def _write_nowhere() -> None:
    """Whoever read our output has had enough; Python would complain once more when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run_hydra(command: Command, line: CommandLine, start: Start | None) -> None:
    import hydra

    from slm.cli.composition import CONF, OF_MAIN

    if line.is_multirun:
        from slm.cli.sweep import register

        register()

    program, started = sys.argv[0], False

    def guarded(cfg: DictConfig) -> Any:
        nonlocal started
        started = True
        one_of_many = _let_ranks_follow(program, line, command)
        try:
            command.place(cfg)
            value = _performed(command, *command.checked(cfg))
        except BrokenPipeError:
            return _write_nowhere()
        except Exception as error:
            return _tell_of_failure(command, error, cfg, one_of_many, None if start is None else line)
        is_loss = not isinstance(value, float) or math.isfinite(value)
        return value if is_loss or not one_of_many else None  # sweepers fail over nan

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of ending in Hydra's report
    sys.argv = [program, *line.flags, *command.quoted(line)]
    guarded.__module__, guarded.__qualname__ = command.task.__module__, command.task.__qualname__
    try:
        if start is None:
            hydra.main(config_path=f"pkg://{CONF}", config_name=command.config_name, **OF_MAIN)(guarded)()
        else:
            start(guarded)
    except OSError as error:
        if started or error.filename is None:
            raise
        raise UserError(f"cannot make the run folder '{error.filename}' ({error.strerror})") from None
    except ValueError as error:
        if "No trials are completed" not in str(error):
            raise
        raise UserError("no job came to a validation loss that the sweeper could minimise") from None


def _performed(command: Command, values: dict[str, Any], settings: Any) -> Any:
    """The task, and its result printed; what it returns."""
    with nothing_else_on_stdout(values["json"]):
        result = command.task(values, settings)
    if not isinstance(result, Result):
        return result
    print(result.text(values["json"]), flush=True)
    if result.then is not None:
        with nothing_else_on_stdout(values["json"]):
            result.then()
    if result.status:
        sys.exit(result.status)
    return result.loss


def _tell_of_failure(
    command: Command, error: Exception, cfg: DictConfig, one_of_many: bool, unread: CommandLine | None
) -> None:
    """Tell of a task that failed, and end with it, by the mistakes of an `unread` command line if it has any; of one of
    many tell that the others go on."""
    from hydra.core.hydra_config import HydraConfig

    from slm.cli.composition import explain
    from slm.cli.mistakes import find_mistakes, with_suggestions
    from slm.cli.multirun import job_failed

    message = explain(error)
    message = message and with_suggestions(command, message, cfg)
    if one_of_many:
        job_failed(message, error)
    elif message is None:
        raise error
    else:
        _remove_empty(Path(HydraConfig.get().runtime.output_dir))
        mistakes = find_mistakes(command, unread) if unread is not None else []
        fail("\n".join(mistakes) or message)


def _let_ranks_follow(program: str, line: CommandLine, command: Command) -> bool:
    """Whether this job is one of a multirun. Lightning starts further ranks by `sys.argv` again, in `hydra.run.dir`:
    they must read what the user typed, and in a multirun what this job is, in this job's folder."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import open_dict, read_write

    job: Any = HydraConfig.get()
    if job.mode != RunMode.MULTIRUN:
        sys.argv = [program, *line.known]
        return False
    flags = [] if line.config_dir is None else [f"--config-dir={line.config_dir}"]
    sys.argv = [program, *flags, *as_typed(job.overrides.task, [*command.literal, *command.paths])]
    with read_write(job), open_dict(job):
        job.run.dir = job.runtime.output_dir
    return True


def _remove_empty(folder: Path) -> None:
    """Take back the folder that Hydra made ahead of the task, if it is empty, and below here its parents too."""
    here = Path.cwd()
    below_here = [parent for parent in folder.parents if here in parent.parents]
    with contextlib.suppress(OSError):  # it holds something, or where it lies cannot be written to
        for place in (folder, *below_here) if folder != here else ():
            place.rmdir()
