"""The MLP's non-linearity by the C kernels, in place: torch's spends most of a prompt's time outside of products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slm.models.modules.activations import GELU, GELUTanh, ReLU, ReLUSquared, SiLU
from slm.models.native.library import library
from slm.models.native.products import serves

_KINDS: tuple[type[nn.Module], ...] = (GELU, GELUTanh, ReLU, ReLUSquared, SiLU)  # in the order of activations.h
_FASTER = (GELUTanh, ReLUSquared)  # than torch's, of many numbers
_WIDTH = 16  # numbers that the kernel takes at a time


class NativeActivation(nn.Module):
    """The same numbers as `source`, which may be written over what it is given.

    Args:
        source: one that `has_kernel`.

    Attributes:
        kind: its number in activations.h.
    """

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.source = source
        kind = kind_of(source)
        assert kind is not None
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        found = library() if type(self.source) in _FASTER else None
        if found is None or x.numel() % _WIDTH or not x.is_contiguous() or not serves(x, x.shape[-1]):
            y: Tensor = self.source(x)
            return y
        found.activate(x.data_ptr(), self.kind, x.dtype == torch.bfloat16, x.numel(), torch.get_num_threads())
        return x


def kind_of(activation: object) -> int | None:
    """The number in activations.h of a module of this class; None for one of others."""
    return _KINDS.index(type(activation)) if type(activation) in _KINDS else None


def has_kernel(activation: object) -> bool:
    """Whether there is one for a module of this class."""
    return kind_of(activation) is not None and library() is not None
