"""The checkpoint files of a run: their names, and the newest that is whole.

last.ckpt, best.ckpt and step_*.ckpt of one step are one file under several names, so damage to it meets them all;
what is left then is another step.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from slm.errors import UserError
from slm.notices import notice
from slm.training.run.sealed_file import fault_of, is_sealed

CHECKPOINTS = "checkpoints"
LAST_CHECKPOINT = "last.ckpt"
BEST_CHECKPOINT = "best.ckpt"
_STEP_FILES = "step_*.ckpt"
_KEPT_FILES = "kept_*.ckpt"


def step_file(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` stays."""
    return folder / f"step_{step:08d}.ckpt"


def step_files(folder: Path) -> dict[int, Path]:
    """Step -> file, in the order of the steps."""
    found = {file.stem.removeprefix("step_"): file for file in folder.glob(_STEP_FILES)}
    return dict(sorted((int(step), file) for step, file in found.items() if step.isdecimal()))


def for_good_file(folder: Path, step: int) -> Path:
    """A second name of the checkpoint of `step`, under which it stays for good."""
    return folder / f"kept_{step:08d}.ckpt"


def for_good_files(folder: Path) -> list[Path]:
    """Those there are, in the order of the steps."""
    return sorted(folder.glob(_KEPT_FILES))


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, replacing what was there in one move."""
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        shutil.copyfile(source, partial)  # a file system without hard links
    os.replace(partial, target)


def checkpoints_of(run: Path) -> list[Path]:
    """A run's checkpoint files, in the order in which they are gone on from: last, the steps from the newest on, best,
    those kept for good."""
    folder = run / CHECKPOINTS
    steps, for_good = reversed(step_files(folder).values()), reversed(for_good_files(folder))
    places = [folder / LAST_CHECKPOINT, *steps, folder / BEST_CHECKPOINT, *for_good]
    return [place for place in places if place.is_file()]


def newest_whole(run: Path) -> Path | None:
    """The first of `checkpoints_of` that is whole; None if there are none.

    Raises:
        UserError: there are some, and all are damaged.
    """
    files = checkpoints_of(run)
    for file in files:
        if fault_of(file) is None:
            return file
    if files:
        faults = "; ".join(f"{file.name}: {fault_of(file)}" for file in files)
        raise UserError(
            f"resume: every checkpoint in '{run / CHECKPOINTS}' is damaged ({faults}); "
            "restore one from a copy, or start a new run in another run_dir"
        )
    return None


def refuse_damaged(file: Path) -> None:
    """Raise `UserError` for a damaged checkpoint file that was asked for by its name; one that is whole is named."""
    fault = fault_of(file)
    if fault is None:
        return
    others = [other for other in checkpoints_of(file.absolute().parent.parent) if other != file.absolute()]
    good = next((other for other in others if fault_of(other) is None), None)
    mend = f"resume={file.parent / good.name} is whole" if good else "restore it from a copy, or start a new run"
    raise UserError(f"resume: '{file}' is not a checkpoint that can be read ({fault}); {mend}")


def say_what_is_taken(taken: Path) -> None:
    """Notices of newer files of the same run that are damaged, and of a checkpoint without a checksum.

    Args:
        taken: what `newest_whole` gave, or a file that was asked for by its name.
    """
    if not is_sealed(taken):
        notice(f"'{taken}' has no checksum (an older version of slm wrote it); its archive was checked instead")
    files = checkpoints_of(taken.parent.parent) if taken.parent.name == CHECKPOINTS else []
    before = files[: files.index(taken)] if taken in files else []
    faults = [f"'{file}' is damaged: {fault}" for file in before if (fault := fault_of(file))]
    if faults and len(faults) == len(before):  # else it was asked for by its name, others being whole
        notice("\n".join([*faults, f"going on from '{taken}', the newest checkpoint that is whole"]))
