"""Which checkpoint a run goes on from, or begins from: of ``resume=auto``, of a folder, of a file. Imports no torch."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from slm.errors import UserError
from slm.notices import notice
from slm.training.run.checkpoint_files import CHECKPOINTS, checkpoints_of, fault_of
from slm.training.run.folder import RECORD_FILE, TIME, overrides_from_start, read_record, run_of_checkpoint


def checkpoint_to_resume(resume: str | None, run: Path) -> Path | None:
    """The checkpoint file that `resume` means for a run in folder `run`, of a folder the newest one that is whole; None
    to start afresh. `UserError` for a path that is neither a checkpoint nor holds one, or is of a damaged one."""
    if resume is None:
        return None
    if resume == "auto":
        return newest_whole(run)
    return _checkpoint_at(Path(resume).expanduser(), "resume", "auto, a run folder or a checkpoint file")


def place_and_step(from_step: str) -> tuple[Path, int | None]:
    """The run folder or checkpoint file that ``from_step`` names, and the step behind the last ``@``, if any."""
    path, at, step = from_step.rpartition("@")
    if at and step.isdecimal() and not Path(from_step).expanduser().exists():
        return Path(path).expanduser(), int(step)
    return Path(from_step).expanduser(), None


def checkpoint_to_begin_from(from_step: str) -> Path:
    """The checkpoint file that ``from_step`` names; of a step of a run any, whose step is not looked at. `UserError` if
    there is none, or it is damaged."""
    place, step = place_and_step(from_step)
    if step is not None and place.is_file():
        raise UserError(f"from_step: '{place}' is one checkpoint; leave @{step} out, or name its run folder")
    return _checkpoint_at(place, "from_step", "RUN@STEP, a run folder or a checkpoint file")


def _checkpoint_at(path: Path, key: str, allowed: str) -> Path:
    """The file, if it is whole, or the folder's newest that is."""
    if path.is_file():
        refuse_damaged(path, key)
        return path
    if (newest := newest_whole(path)) is not None:
        return newest
    found = f"holds no checkpoint ({CHECKPOINTS}/*.ckpt)" if path.is_dir() else "does not exist"
    raise UserError(f"{key}: '{path}' {found}; give {allowed}")


def newest_whole(run: Path) -> Path | None:
    """The first of `checkpoints_of` that is whole; None if there are none, `UserError` if all are damaged."""
    files = checkpoints_of(run)
    whole = next((file for file in files if fault_of(file) is None), None)
    if files and whole is None:
        faults = "; ".join(f"{file.name}: {fault_of(file)}" for file in files)
        raise UserError(
            f"resume: every checkpoint in '{run / CHECKPOINTS}' is damaged ({faults}); "
            "restore one from a copy, or start a new run in another run_dir"
        )
    return whole


def refuse_damaged(file: Path, key: str = "resume") -> None:
    """Raise `UserError` for a damaged checkpoint file that was asked for by its name; one that is whole is named."""
    fault = fault_of(file)
    if fault is None:
        return
    others = [other for other in checkpoints_of(file.absolute().parent.parent) if other != file.absolute()]
    good = next((other for other in others if fault_of(other) is None), None)
    mend = f"{key}={file.parent / good.name} is whole" if good else "restore it from a copy, or start a new run"
    raise UserError(f"{key}: '{file}' is not a checkpoint that can be read ({fault}); {mend}")


def say_what_is_taken(taken: Path) -> None:
    """A notice of the damaged files that `newest_whole`, which gave `taken`, passed over."""
    files = checkpoints_of(taken.parent.parent) if taken.parent.name == CHECKPOINTS else []
    before = files[: files.index(taken)] if taken in files else []
    faults = [f"'{file}' is damaged: {fault}" for file in before if (fault := fault_of(file))]
    if faults and len(faults) == len(before):  # else it was asked for by its name, others being whole
        notice("\n".join([*faults, f"going on from '{taken}', the newest checkpoint that is whole"]))


def check_free(run: Path, checkpoint: Path | None) -> None:
    """Raise `UserError` if folder `run` holds a run that is not the one to go on with from `checkpoint`."""
    is_its_own = checkpoint is not None and run_of_checkpoint(checkpoint).resolve() == run.resolve()
    if checkpoints_of(run) and not is_its_own:
        raise UserError(f"run_dir: '{run}' holds a run already; go on with it (resume={run}) or name another folder")


def newest_run(root: Path, overrides: Sequence[str]) -> Path | None:
    """The newest run under `root` that was started with these overrides and has a checkpoint."""
    wanted = overrides_from_start({"overrides": overrides})
    runs = [file.parent for file in root.glob(f"*/{RECORD_FILE}") if checkpoints_of(file.parent)]
    candidates = [run for run in runs if overrides_from_start(read_record(run)) == wanted]
    return max(candidates, key=lambda run: (_started(run), run.name), default=None)


def _started(run: Path) -> float:
    """When the last session of a run began, as it noted itself: a copied folder has new times. In s since 1970."""
    try:
        noted = read_record(run)["sessions"][-1]["started"]
        return datetime.strptime(noted, TIME).timestamp()
    except (LookupError, TypeError, ValueError):  # somebody else's record: never the newest
        return 0.0
