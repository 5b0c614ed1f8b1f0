"""A state as it is now, in memory that the next such copy uses again."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


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
    """Each tensor and where it lies."""
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _tensors_in(inner, (*place, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _tensors_in(inner, (*place, index))
