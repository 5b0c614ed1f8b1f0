"""Checkpoints on disk: whole or not there, with a checksum, plain types only."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from slm.errors import UserError
from slm.flush import flush_folder
from slm.training.sealed_file import SealedWriter, fault_in


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to disk and renames it into place."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save; a failure leaves what was there before."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Load; nothing but plain types is ever unpickled."""
        return read_checkpoint(Path(path), map_location)


def write_checkpoint(checkpoint: dict[str, Any], target: Path) -> None:
    """Write a file with its checksum beside `target` and rename it into place, both on the disk at the end.

    Raises:
        OSError: it could not be written; what was there before still is.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb", buffering=0) as out:
            sealed = SealedWriter(out)
            torch.save(checkpoint, sealed)  # type: ignore[arg-type]
            sealed.seal()
            os.fsync(out.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, target)
        flush_folder(target.parent)
    finally:
        Path(partial).unlink(missing_ok=True)


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
        fault = _first_line(error)
    if fault:
        raise UserError(f"resume: '{file}' is not a checkpoint that can be read ({fault})")
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"resume: '{file}' is no checkpoint of a training run")
    return content


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
