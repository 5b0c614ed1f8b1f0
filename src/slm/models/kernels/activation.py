"""The MLP's non-linearity by a C kernel: torch's spends most of a prompt's time outside of products."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from slm.models.kernels.library import library
from slm.models.kernels.products import serves
from slm.models.modules.activations import GELU, GELUTanh, ReLU, ReLUSquared, SiLU

_KINDS: tuple[type[nn.Module], ...] = (GELU, GELUTanh, ReLU, ReLUSquared, SiLU)  # in the order of activation.c
_FASTER = (GELUTanh, ReLUSquared)  # than torch's, of many numbers
WIDTH = 16  # numbers that the kernel takes at a time
_P, _L, _I = ctypes.c_void_p, ctypes.c_long, ctypes.c_int


class _Activation(ctypes.Structure):
    _fields_ = [
        *((name, _P) for name in ("x", "up", "y", "grad", "grad_up")),
        ("n", _L),
        *((name, _I) for name in ("kind", "half", "threads")),
    ]


def activate(
    kind: int, x: Tensor, up: Tensor | None, y: Tensor, grad: Tensor | None = None, grad_up: Tensor | None = None
) -> None:
    """Write activation(x), or activation(x) * up, to `y`, which may be `x`.

    All are contiguous, their numbers a multiple of WIDTH. With `grad`, the gradient of `y`: it is overwritten by that
    of `x`, and `grad_up` by that of `up`.
    """
    places = (None if tensor is None else tensor.data_ptr() for tensor in (x, up, y, grad, grad_up))
    activation = _Activation(*places, x.numel(), kind, x.dtype == torch.bfloat16, torch.get_num_threads())
    found = library()
    assert found is not None
    found.activate(ctypes.byref(activation))


class NativeActivation(nn.Module):
    """The same numbers as `source`, which may be written over what it is given.

    Args:
        source: one that `has_kernel`.

    Attributes:
        kind: its number in activation.c.
    """

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.source = source
        kind = kind_of(source)
        assert kind is not None
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        if (
            type(self.source) not in _FASTER
            or library() is None
            or x.numel() % WIDTH
            or not x.is_contiguous()
            or not serves(x, x.shape[-1])
        ):
            y: Tensor = self.source(x)
            return y
        activate(self.kind, x, None, x)
        return x


def kind_of(activation: object) -> int | None:
    """The number in activation.c of a module of this class; None for one of others."""
    return _KINDS.index(type(activation)) if type(activation) in _KINDS else None


def has_kernel(activation: object) -> bool:
    """Whether there is one for a module of this class."""
    return kind_of(activation) is not None and library() is not None
