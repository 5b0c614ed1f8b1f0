"""The tensors of a TensorFlow checkpoint, as OpenAI released GPT-2's, read one at a time."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.errors import UserError
from slm.extras import require
from slm.weights.tf_index import read_index

CHECKPOINT_FILE = "checkpoint"
_LONGEST_STATE = 64 << 10
"""Bytes of ``checkpoint``; OpenAI's has 77."""
_PICKLES = ("*.pkl", "*.pt", "*.pth", "*.bin")
_DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int32": torch.int32,
    "int64": torch.int64,
}


class TensorFlowCheckpoint:
    """A folder with ``checkpoint`` and the files it names (``model.ckpt.*``).

    No graph and no device is made: TensorFlow's reader looks tensors up by name, verifies the CRC-32C of each, and
    no GPU is touched. All variables are listed, an optimizer's too.

    Args:
        folder: the one that holds them.

    Attributes:
        where: the folder, for messages.
        shapes, dtypes: of every variable, by name, in alphabetical order.

    Raises:
        UserError: there is no checkpoint, only a pickled one, a damaged one, one with variables that are no numbers,
            or no TensorFlow to read it with.
    """

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        _refuse_other_folders(folder)
        self._tensorflow = _tensorflow(f"the TensorFlow checkpoint in '{folder}'")
        with self._readable():
            prefix = self._prefix(folder)
            variables = read_index(prefix)
        kinds = {name: self._kind(variable.dtype) for name, variable in variables.items()}
        if others := sorted(name for name, kind in kinds.items() if kind not in _DTYPES):
            raise UserError(
                f"the checkpoint in '{folder}' is not of GPT-2's layout: '{others[0]}' is {kinds[others[0]]}, "
                f"read are {', '.join(_DTYPES)}; save it with tf.compat.v1.train.Saver"
            )
        with self._readable():
            self._reader: Any = self._tensorflow.compat.v1.train.NewCheckpointReader(str(prefix))
        self.shapes: Mapping[str, tuple[int, ...]] = {name: variables[name].shape for name in sorted(variables)}
        self.dtypes: Mapping[str, torch.dtype] = {name: _DTYPES[kinds[name]] for name in sorted(kinds)}

    def _kind(self, number: int) -> str:
        try:
            return str(self._tensorflow.dtypes.as_dtype(number).name)
        except TypeError:
            return f"of an unknown type ({number})"

    def _prefix(self, folder: Path) -> Path:
        """Where the newest checkpoint's files lie, less their endings.

        ``checkpoint`` may name the place they were written to; they are where it is now, and never in another folder.
        """
        if (folder / CHECKPOINT_FILE).stat().st_size > _LONGEST_STATE:
            raise ValueError(f"{CHECKPOINT_FILE} is longer than {_LONGEST_STATE >> 10} KiB")
        with _silent_stderr():
            state = self._tensorflow.train.get_checkpoint_state(str(folder))
        name = Path(state.model_checkpoint_path).name if state is not None else ""
        if not name:
            raise ValueError(f"{CHECKPOINT_FILE} names no files")
        return folder / name

    def read(self, name: str) -> Tensor:
        """The variable, in its own dtype, on the CPU; the memory is the caller's.

        Raises:
            UserError: the data file is missing, cut short or damaged.
        """
        with self._readable():
            array = np.asarray(self._reader.get_tensor(name))
        if self.dtypes[name] == torch.bfloat16:  # numpy has none: TensorFlow brings a type that torch does not know
            return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """TensorFlow's many errors and `read_index`'s in our words: `ValueError` for ``checkpoint`` and the index,
        `OpError` for a checksum, `IndexError` for a data file cut short since."""
        try:
            yield
        except (self._tensorflow.errors.OpError, LookupError, OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"the checkpoint in '{self.where}' is damaged or not whole ({reason}); fetch it again"
            ) from error


def _refuse_other_folders(folder: Path) -> None:
    """Raise `UserError` unless the folder holds a checkpoint; a pickle is named, and why it is not read."""
    if not folder.is_dir():
        raise UserError(f"there is no folder '{folder}'; give the one that holds {CHECKPOINT_FILE} and model.ckpt.*")
    if (folder / CHECKPOINT_FILE).is_file():
        return
    if pickles := sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern)):
        raise UserError(
            f"'{folder}' holds only a pickled dump ({pickles[0]}), and to unpickle is to run what code is in it; "
            "make a safe bundle of the original files: slm-convert source=gpt2-124m format=gpt2_tf to=slm out=…"
        )
    raise UserError(f"'{folder}' holds no TensorFlow checkpoint: {CHECKPOINT_FILE} is missing; fetch it again")


def _tensorflow(purpose: str) -> Any:
    """TensorFlow, imported without a word; an import error still tells what went wrong."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silent_stderr():
        return require("tensorflow", "tf", purpose)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: what TensorFlow 2.21 says while it is loaded heeds no setting."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
