"""Checkpoints on disk: whole or not there, plain types only, written by a thread while training goes on."""

import copy
import errno
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from slm.errors import UserError
from slm.files.writing import flush_folder, new_file
from slm.notices import notice
from slm.training.run.checkpoint_files import fault_in

Beside = Callable[[Path], None]

_NICE = 10  # of the thread that writes: a tenth of the processor where training wants it all


class CheckpointWriter(TorchCheckpointIO):
    """Writes one checkpoint at a time; `in_background` it copies the state, and a thread does the rest.

    Lightning's `AsyncCheckpointIO` does not serve: it allocates a new copy each time, lets any number of them pile up,
    and ends the run when a disk is full.
    """

    def __init__(self, in_background: bool = False) -> None:
        super().__init__()
        self._in_background = in_background
        self._pool: ThreadPoolExecutor | None = None
        self._job: Future[None] | None = None
        self._copies = HostCopy()
        self._beside: Beside | None = None
        self._changed_as_read: tuple[Path, Callable[[dict[str, Any]], dict[str, Any]]] | None = None

    def copied(self, state: Any) -> Any:
        """`state`, of which a job may still read when training has gone on; of what the next checkpoint holds no second
        copy is made."""
        return self._copies.take(state, "beside") if self._in_background else state

    def put_beside(self, action: Beside) -> None:
        """Let `action` do its part of the next save: called with the written file just before that takes its name.

        So the name stands for all of it: whoever finds the new checkpoint there finds what `action` wrote too.
        """
        self._beside = action

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save; a failure leaves what was there before, and `wait` tells of it."""
        state = self._copies.take(checkpoint) if self._in_background else checkpoint
        self._copies.release()
        beside, self._beside = self._beside, None
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "saving", _leave_the_processor)
        self._job = self._pool.submit(_write_or_say, state, Path(path), beside)
        if not self._in_background:
            self._job.exception()

    def wait(self) -> OSError | None:
        """Until nothing is being saved; the last save's error, once, if the disk was at fault. Any other is raised."""
        job, self._job = self._job, None
        error = job.exception() if job is not None else None
        if error is not None and not isinstance(error, OSError):
            raise error
        return error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        content = read_checkpoint(Path(path), map_location)
        file, change = self._changed_as_read or (None, None)
        return change(content) if change is not None and Path(path) == file else content

    def change_as_read(self, file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Whenever the state of `file` is put back, put back what `change` makes of it."""
        self._changed_as_read = file, change

    def teardown(self) -> None:
        """However training ended, what is being saved is finished; a later save begins another thread."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None


def _leave_the_processor() -> None:
    if sys.platform == "linux":  # elsewhere this number is the whole process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


class HostCopy:
    """Copies of nested dicts, lists and tuples of tensors and plain values, on the host.

    A tensor goes into the buffer that held it the last time, so that a save neither allocates gigabytes nor touches new
    pages. Tensors that are one (in one `take` or several, until `release`) are one in the copy too.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], Tensor] = {}  # by place in the state
        self._taken: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}  # by identity; the source too, to keep it alive

    @torch.no_grad()
    def take(self, state: Any, *place: Any) -> Any:
        """The copy: valid until `take` is called for the same `place` after a `release`."""
        memo = {id(tensor): self._buffer_of(tensor, where) for where, tensor in _tensors_in(state, place)}
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.current_stream().synchronize()
        return copy.deepcopy(state, memo)

    def release(self) -> None:
        """Forget what the sources were; the buffers stay."""
        self._taken.clear()

    def _buffer_of(self, tensor: Tensor, place: tuple[Any, ...]) -> Tensor:
        identity = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and identity in self._taken:
            return self._taken[identity][1]
        buffer = self._buffers.get(place)
        if buffer is None or (buffer.shape, buffer.stride(), buffer.dtype) != identity[2:]:
            buffer = self._buffers[place] = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        buffer.copy_(tensor, non_blocking=tensor.is_cuda)  # only CUDA's stream is waited for in `take`
        self._taken[identity] = (tensor, buffer)
        return buffer


def _tensors_in(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _tensors_in(inner, (*place, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _tensors_in(inner, (*place, index))


# ---- one file ----


class Disk:
    """The file object that `torch.save` writes to. A write that fails raises nothing here, since torch would make
    another error of it: what comes after is dropped, and whoever gave the file looks at `error`. `size` is the bytes
    given so far, whether the disk took them or not."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        size = memoryview(data).nbytes
        self.size += size
        try:
            if self.error is None:
                self.out.write(data)
        except OSError as error:
            self.error = error
        return size

    def flush(self) -> None: ...


def write_checkpoint(checkpoint: dict[str, Any], target: Path, beside: Beside | None = None) -> None:
    """Write a file beside `target` and rename it into place, both on the disk at the end; `beside` is called with it
    before it is renamed. `OSError`: it could not be written; what was there before still is."""
    needed = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_file(target) as out:
            disk = Disk(out)
            torch.save(checkpoint, disk)  # type: ignore[arg-type]
            needed = disk.size
            if disk.error is not None:
                raise disk.error
            if beside is not None:
                out.flush()
                os.fsync(out.fileno())
                beside(Path(out.name))
        flush_folder(target.parent)
    except OSError as error:
        text = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text += f" ({needed / 1e6:,.1f} MB needed, {shutil.disk_usage(target.parent).free / 1e6:,.1f} MB free)"
        raise OSError(error.errno, text, str(target)) from error


def _write_or_say(checkpoint: dict[str, Any], target: Path, beside: Beside | None) -> None:
    """What goes wrong in the background is said when it does, not at the next save."""
    try:
        write_checkpoint(checkpoint, target, beside)
    except OSError as error:
        stays = f"; '{target.name}' of before is untouched" if target.is_file() else ""
        notice(f"the checkpoint is not saved: {error.strerror}: '{target}'{stays}; the next save tries again")
        raise


def read_checkpoint(file: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint's content, its CRC-32s compared before anything of it is used. `UserError`: the file is missing,
    damaged, or holds anything but plain types."""
    try:
        with file.open("rb") as bytes_:
            fault = fault_in(bytes_)
            content: Any = None if fault else torch.load(bytes_, map_location=map_location or "cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"resume: there is no checkpoint '{file}'") from None
    except Exception as error:  # torch raises many kinds for what is no checkpoint
        fault = str(error).strip().split("\n")[0][:200] or type(error).__name__
    if fault:
        raise UserError(f"resume: '{file}' is not a checkpoint that can be read ({fault})")
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"resume: '{file}' is no checkpoint of a training run")
    return content


def model_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The model's tensors, by its own names."""
    prefix = "model."  # of the LightningModule's attribute
    return {n.removeprefix(prefix): t for n, t in checkpoint["state_dict"].items() if n.startswith(prefix)}
