"""Checkpoints on disk: whole or not there, plain types only."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from slm.errors import UserError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to disk and renames it into place."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save; a failure leaves what was there before."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as out:
                torch.save(checkpoint, out)
                out.flush()
                os.fsync(out.fileno())
            os.chmod(partial, 0o644)
            os.replace(partial, target)
        finally:
            Path(partial).unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Load; nothing but plain types is ever unpickled."""
        return read_checkpoint(Path(path), map_location)


def read_checkpoint(file: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint's content.

    Raises:
        UserError: the file is missing, damaged, or holds anything but plain types.
    """
    try:
        content: dict[str, Any] = torch.load(file, map_location=map_location or "cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"resume: there is no checkpoint '{file}'") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise UserError(f"resume: '{file}' is not a checkpoint that can be read ({_first_line(error)})") from None
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"resume: '{file}' is no checkpoint of a training run")
    return content


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
