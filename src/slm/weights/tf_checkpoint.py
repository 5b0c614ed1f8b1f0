"""The tensors of a TensorFlow checkpoint, as OpenAI released GPT-2's, read one at a time by TensorFlow's own reader."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slm.errors import UserError
from slm.extras import check_installed
from slm.weights.tf_reader import CHECKPOINT_FILE

_PICKLES = ("*.pkl", "*.pt", "*.pth", "*.bin")
_DTYPES = {n: getattr(torch, n) for n in ("float16", "bfloat16", "float32", "float64", "int32", "int64")}


class TensorFlowCheckpoint:
    """A folder with ``checkpoint`` and the files it names (``model.ckpt.*``): all variables, an optimizer's too.

    TensorFlow, which verifies the CRC-32C of each, runs in a process of its own: damaged files end it by a `CHECK` more
    often than by an error. The tensors come through a pipe, so that only one at a time is in memory twice.
    """

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        _refuse_other_folders(folder)
        check_installed("tensorflow", "tf", f"the TensorFlow checkpoint in '{folder}'")
        self._process: Any = _reading(folder)
        weakref.finalize(self, _end, self._process, os.getpid())
        variables: Mapping[str, tuple[str, list[int]]] = self._answer()["variables"]
        for name, (kind, _) in variables.items():
            if kind not in _DTYPES:
                raise UserError(
                    f"the checkpoint in '{folder}' is not of GPT-2's layout: '{name}' is {kind}, "
                    f"read are {', '.join(_DTYPES)}; save it with tf.compat.v1.train.Saver"
                )
        self.shapes: Mapping[str, tuple[int, ...]] = {name: tuple(shape) for name, (_, shape) in variables.items()}
        self.dtypes: Mapping[str, torch.dtype] = {name: _DTYPES[kind] for name, (kind, _) in variables.items()}

    def read(self, name: str) -> Tensor:
        """The variable, in its own dtype, on the CPU; the memory is the caller's."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(name).encode() + b"\n")
            self._process.stdin.flush()
        n_bytes: int = self._answer()["bytes"]
        tensor = torch.empty(self.shapes[name], dtype=self.dtypes[name])
        content = tensor.reshape(-1).view(torch.uint8).numpy().data
        if n_bytes != len(content) or self._process.stdout.readinto(content) != n_bytes:
            raise self._damaged(_how_it_ended(self._process))
        return tensor

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {"error": _how_it_ended(self._process)}
        if "error" in answer:
            raise self._damaged(answer["error"])
        return answer

    def _damaged(self, reason: str) -> UserError:
        return UserError(f"the checkpoint in '{self.where}' is damaged or not whole ({reason}); fetch it again")


def _reading(folder: Path) -> subprocess.Popen[bytes]:
    """A program of its own and no child of `multiprocessing`, which would import the main module again."""
    return subprocess.Popen(
        [sys.executable, "-c", "from slm.weights.tf_reader import main; main()", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"},
        start_new_session=True,  # Ctrl-C is for us
    )


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    process.kill()  # where it only closed its pipe
    status = process.wait()
    return f"TensorFlow's reader ended with {signal.Signals(-status).name if status < 0 else f'status {status}'}"


def _end(process: subprocess.Popen[bytes], pid: int) -> None:
    if pid == os.getpid():  # a forked process has the object too, and not the child
        process.kill()
        with contextlib.suppress(OSError):
            process.communicate()


def _refuse_other_folders(folder: Path) -> None:
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
