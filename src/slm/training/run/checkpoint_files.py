"""The checkpoint files of a run: their names, which of them stay, and the newest that is whole.

last.ckpt, best.ckpt and step_*.ckpt of one step are one file under several names, so damage to it meets them all;
what is left then is another step. Imports no torch.
"""

import errno
import os
import shutil
import struct
import time
import zipfile
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from slm.training.save_points import in_short, words_in

CHECKPOINTS = "checkpoints"
LAST_CHECKPOINT = "last.ckpt"
BEST_CHECKPOINT = "best.ckpt"
_OF_WORDS = "words_"

_ENCRYPTED = 0x2041  # bits 0, 6 and 13 (APPNOTE.TXT 4.4.4)


def step_file(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` stays."""
    return folder / f"step_{step:08d}.ckpt"


def step_files(folder: Path) -> dict[int, Path]:
    """Step -> file, in the order of the steps."""
    found = {file.stem.removeprefix("step_"): file for file in folder.glob("step_*.ckpt")}
    return dict(sorted((int(step), file) for step, file in found.items() if step.isdecimal()))


def before_fall_file(folder: Path, step: int) -> Path:
    """Where the state of `step`, the last before the rate falls, stays for good: a run that becomes longer goes on from
    there."""
    return folder / f"before_fall_{step:08d}.ckpt"


def kept_file(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` stays for good."""
    return folder / f"kept_{step:08d}.ckpt"


def save_point_file(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step`, one of ``trainer.save_at``, stays for good."""
    return folder / f"at_{step:08d}.ckpt"


def save_point_files(folder: Path) -> dict[int, Path]:
    """Step -> file, ascending."""
    return {step: file for step, file in reversed(numbered_files(folder)) if file == save_point_file(folder, step)}


def word_point_file(folder: Path, words: int) -> Path:
    """Where the state of a run that had read so many `words`, of ``trainer.save_at``, stays for good."""
    return folder / f"{_OF_WORDS}{in_short(words)}.ckpt"


def word_point_files(folder: Path) -> dict[int, Path]:
    """Words -> file, ascending."""
    found = {words_in(file.stem.removeprefix(_OF_WORDS)): file for file in folder.glob(f"{_OF_WORDS}*.ckpt")}
    return dict(sorted((words, file) for words, file in found.items() if words is not None))


def numbered_files(folder: Path) -> list[tuple[int, Path]]:
    """All whose names say their steps, from the newest on; of one step in no certain order."""
    kinds = ("step", "at", "kept", "before_fall")
    named = [(file.stem.removeprefix(f"{kind}_"), file) for kind in kinds for file in folder.glob(f"{kind}_*.ckpt")]
    return sorted(((int(step), file) for step, file in named if step.isdecimal()), reverse=True)


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


# ---- which stay ----


def link_save_point(written: Path, folder: Path, step: int) -> None:
    """Name `written` as the save point `step`; those of later steps, of a run that was gone back from, go."""
    link(written, save_point_file(folder, step))
    for number, file in numbered_files(folder):
        if number > step and file == save_point_file(folder, number):
            file.unlink()


def link_word_point(written: Path, folder: Path, words: int) -> None:
    """Name `written` as that of so many `words`; those of more, of a run that was gone back from, go."""
    link(written, word_point_file(folder, words))
    for more, file in word_point_files(folder).items():
        if more > words:
            file.unlink()


def keep_for_good(folder: Path, step: int, every_hours: float) -> None:
    """Give the file of `step` a second name that is never dropped, if the newest of that kind is a period old.

    A clock that was set wrong costs a file too many or too few, never one that is there.
    """
    newest = max((file.stat().st_mtime for file in folder.glob("kept_*.ckpt")), default=None)
    if newest is None or abs(time.time() - newest) >= every_hours * 3600:
        link(step_file(folder, step), kept_file(folder, step))


def dropped(steps: Collection[int], saved: int, keep: int) -> list[int]:
    """The `steps` whose files go when that of `saved` was written: later ones, of a run that was gone back from, and
    all but the newest `keep` (0: all stay). Of 1 the one before it stays too, lest damage to one file be the end."""
    if keep == 0:
        return []
    ahead = [step for step in steps if step > saved]
    return [*ahead, *sorted(step for step in steps if step <= saved)[: -max(keep, 2)]]


# ---- which are whole ----


def fault_of(file: Path) -> str | None:
    """What is wrong with a checkpoint file in a few words, or None; read once as long as it stays the same."""
    try:
        found = file.stat()
        return _fault_at(file.absolute(), (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


@lru_cache(maxsize=256)
def _fault_at(file: Path, identity: tuple[int, ...]) -> str | None:
    with file.open("rb") as content:
        return fault_in(content)


def fault_in(content: BinaryIO) -> str | None:
    """As `fault_of`, of an open file; left at its beginning. `OSError`: it cannot be read.

    `torch.save` writes a zip archive, which has a CRC-32 of every tensor and of the pickle that names them; torch's own
    reader does not look at them. What is damaged of the archive's own records may be left for that reader to find, and
    what no reader uses (padding, dates) is not looked at.
    """
    size = content.seek(0, os.SEEK_END)
    if not size:
        return "it is empty"
    try:
        with zipfile.ZipFile(content) as archive:
            parts = archive.infolist()
            if sum(part.file_size for part in parts) > size or not all(map(_is_plain, parts)):
                return "torch did not write it"  # a few bytes could stand for gigabytes
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, struct.error) as error:
        return f"its archive is damaged: {error}"
    finally:
        content.seek(0)
    return f"its part '{damaged}' does not match its CRC-32" if damaged else None


def _is_plain(part: zipfile.ZipInfo) -> bool:
    """A part as torch writes them: not compressed, in this file, no folder, nothing encrypted."""
    is_stored = part.compress_type == zipfile.ZIP_STORED and part.compress_size == part.file_size
    return is_stored and not (part.volume or part.external_attr or part.flag_bits & _ENCRYPTED)


def checkpoints_of(run: Path) -> list[Path]:
    """A run's checkpoint files, in the order in which they are gone on from: last, the steps from the newest on, best,
    those kept for good."""
    folder = run / CHECKPOINTS
    steps = list(step_files(folder).values())
    for_good = [file for _, file in numbered_files(folder) if file not in steps]
    places = [folder / LAST_CHECKPOINT, *steps[::-1], folder / BEST_CHECKPOINT, *for_good]
    return [place for place in places if place.is_file()]
