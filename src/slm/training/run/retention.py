"""Which checkpoints stay: by count, and one a period for good."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from slm.training.run.checkpoint_files import for_good_file, for_good_files, link, step_file, step_files


def keep_for_good(folder: Path, step: int, every_hours: float) -> None:
    """Give the file of `step` a second name that is never dropped, if the newest of that kind is a period old.

    A clock that was set wrong costs a file too many or too few, never one that is there.
    """
    newest = max((file.stat().st_mtime for file in for_good_files(folder)), default=None)
    if newest is None or abs(time.time() - newest) >= every_hours * 3600:
        link(step_file(folder, step), for_good_file(folder, step))


def drop_old(folder: Path, saved: int, keep: int) -> None:
    """Remove the ``step_*.ckpt`` that neither count nor timeline keeps; after the file of step `saved` was written."""
    files = step_files(folder)
    for step in dropped(files, saved, keep):
        files[step].unlink(missing_ok=True)


def dropped(steps: Collection[int], saved: int, keep: int) -> list[int]:
    """The steps whose files go.

    Args:
        steps: those that have one, `saved` among them.
        saved: the newest. Later ones are of a run that was gone back from: they go first, whatever their age.
        keep: how many stay; 0 for all. Of 1 the one before the newest stays too, lest damage to one file be the end.
    """
    if keep == 0:
        return []
    ahead = [step for step in steps if step > saved]
    return [*ahead, *sorted(step for step in steps if step <= saved)[: -max(keep, 2)]]
