"""Checkpoints on disk: whole or not there, with a checksum, plain types only."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from slm.errors import UserError
from slm.files.writing import flush_folder
from slm.notices import notice
from slm.training.run.host_copy import HostCopy
from slm.training.run.sealed_file import SealedWriter, fault_in
from slm.training.run.turns import Turns

Beside = Callable[[Path], None]


class CheckpointWriter(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to disk and renames it into place.

    In the background it copies the state; a thread does the rest while training goes on. The next save waits for it.
    Lightning's `AsyncCheckpointIO` does not serve: it allocates a new copy each time, lets any number of them pile up,
    and ends the run when a disk is full.

    Args:
        in_background: whether `save_checkpoint` returns once the state is copied.
    """

    def __init__(self, in_background: bool = False) -> None:
        super().__init__()
        self._turns = Turns(in_background)
        self._copies = HostCopy()
        self._beside: Beside | None = None

    def copied(self, state: Any) -> Any:
        """`state`, of which a job may still read when training has gone on; of what the next checkpoint holds no second
        copy is made."""
        return self._copies.take(state, "beside") if self._turns.in_thread else state

    def put_beside(self, action: Beside) -> None:
        """Let `action` do its part of the next save: called with the written file just before that takes its name.

        So the name stands for all of it: whoever finds the new checkpoint there finds what `action` wrote too.
        """
        self._beside = action

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save; a failure leaves what was there before, and `wait` tells of it."""
        state = self._copies.take(checkpoint) if self._turns.in_thread else checkpoint
        self._copies.release()
        beside, self._beside = self._beside, None
        self._turns.start(partial(_write_or_say, state, Path(path), beside))

    def wait(self) -> OSError | None:
        """Until nothing is being saved; the last save's error if the disk was at fault.

        Raises:
            Exception: the last save met any other error.
        """
        error = self._turns.wait()
        if error is not None and not isinstance(error, OSError):
            raise error
        return error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Load; nothing but plain types is ever unpickled."""
        return read_checkpoint(Path(path), map_location)

    def teardown(self) -> None:
        """However training ended, what is being saved is finished."""
        self._turns.close()


def _write_or_say(checkpoint: dict[str, Any], target: Path, beside: Beside | None) -> None:
    """What goes wrong in the background is said when it does, not at the next save."""
    try:
        write_checkpoint(checkpoint, target, beside)
    except OSError as error:
        stays = f"; '{target.name}' of before is untouched" if target.is_file() else ""
        notice(f"the checkpoint is not saved: {error.strerror}: '{target}'{stays}; the next save tries again")
        raise


def write_checkpoint(checkpoint: dict[str, Any], target: Path, beside: Beside | None = None) -> None:
    """Write a file with its checksum beside `target` and rename it into place, both on the disk at the end.

    Args:
        checkpoint: plain types and tensors.
        target: its place.
        beside: called with the file before it is renamed.

    Raises:
        OSError: it could not be written; what was there before still is.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    written, needed = Path(name), 0
    try:
        with os.fdopen(handle, "wb", buffering=0) as out:
            sealed = SealedWriter(out)
            torch.save(checkpoint, sealed)  # type: ignore[arg-type]
            needed = sealed.size
            sealed.seal()
            os.fsync(out.fileno())
        written.chmod(0o644)
        if beside is not None:
            beside(written)
        os.replace(written, target)
        flush_folder(target.parent)
    except BaseException as error:
        written.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _with_room(error, target, needed) from error
        raise


def _with_room(error: OSError, target: Path, needed: int) -> OSError:
    """The same error, of `target`; of a full disk it says what was wanted and what there is."""
    text = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text += f" ({needed / 1e6:,.1f} MB needed, {shutil.disk_usage(target.parent).free / 1e6:,.1f} MB free)"
    return OSError(error.errno, text, str(target))


def read_checkpoint(file: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint's content, its checksum compared before anything of it is used.

    Raises:
        UserError: the file is missing, damaged, or holds anything but plain types.
    """
    try:
        with file.open("rb") as bytes_:
            fault = fault_in(bytes_)
            content: Any = None if fault else torch.load(bytes_, map_location=map_location or "cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"resume: there is no checkpoint '{file}'") from None
    except Exception as error:  # torch raises many kinds for what is no checkpoint
        fault = _first_line(error) or type(error).__name__
    if fault:
        raise UserError(f"resume: '{file}' is not a checkpoint that can be read ({fault})")
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"resume: '{file}' is no checkpoint of a training run")
    return content


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
