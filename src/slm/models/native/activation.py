"""The MLP's non-linearity by the C kernels, in place: torch's spends most of a prompt's time outside of products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slm.models.modules.activations import GELU, GELUTanh, ReLU, ReLUSquared, SiLU
from slm.models.native.library import library
from slm.models.native.products import serves

_KINDS: tuple[type[nn.Module], ...] = (GELU, GELUTanh, ReLU, ReLUSquared, SiLU)  # in the order of stack.c
_FASTER = (GELUTanh, ReLUSquared)  # than torch's, of many numbers
_WIDTH = 16  # numbers that the kernel takes at a time


class NativeActivation(nn.Module):
    """The same numbers as `source`, which may be written over what it is given.

    Args:
        source: one that `has_kernel`.

    Attributes:
        kind: its number in stack.c.
    """

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.source = source
        self.kind = _KINDS.index(type(source))

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        found = library() if type(self.source) in _FASTER else None
        if found is None or x.numel() % _WIDTH or not x.is_contiguous() or not serves(x, x.shape[-1]):
            y: Tensor = self.source(x)
            return y
        found.activate(x.data_ptr(), self.kind, x.dtype == torch.bfloat16, x.numel(), torch.get_num_threads())
        return x


def has_kernel(activation: object) -> bool:
    """Whether there is one for a module of this class."""
    return type(activation) in _KINDS and library() is not None
