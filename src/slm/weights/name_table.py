"""How the tensors of another format make up ours: a table, checked against both sides before a number is read."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slm.errors import UserError, first_few
from slm.weights.tensor_source import TensorSource


@dataclass(frozen=True)
class Layout:
    """Another order of the same numbers; both directions are exact inverses."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


SAME = Layout(lambda t: t, lambda t: t)
TRANSPOSED = Layout(lambda t: t.t(), lambda t: t.t())  # (in, out) in place of (out, in): GPT-2's ``Conv1D``


@dataclass(frozen=True)
class Entry:
    """One tensor of our state dict and those that, stacked along the first dimension, it is made of."""

    ours: str
    theirs: tuple[str, ...]
    layout: Layout | tuple[Layout, ...] = SAME  # of all of theirs, or of each
    rows: tuple[int, ...] | None = None  # how many each of theirs gives; None if there is one, which gives all
    padded: bool = False  # ours may have more rows than theirs (a padded vocabulary); the others are zeros
    as_stored: bool = False  # keeps its dtype (the codes and scales of quantized weights)

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Of each of theirs."""
        return self.layout if isinstance(self.layout, tuple) else (self.layout,) * len(self.theirs)


Table = Sequence[Entry]


def identity_table(model: nn.Module) -> list[Entry]:
    """For our own format."""
    weights = {name for name, _ in model.named_parameters()}
    return [Entry(name, (name,), as_stored=name not in weights) for name in model.state_dict()]


def check_tensors(table: Table, ours: Mapping[str, Tensor], source: TensorSource, vocab_size: int) -> None:
    """Raise `UserError` naming what of `source` is missing, unexpected or of another shape than ours, padding aside."""
    expected = {}
    for entry in table:
        laid_out = torch.empty(ours[entry.ours].shape, device="meta")  # `empty_like` would import half of torch.compile
        expected.update({name: tuple(theirs.shape) for name, theirs in _as_theirs(entry, laid_out, vocab_size)})
    found = source.shapes
    problems = [f"'{name}' is missing" for name in sorted(expected.keys() - found.keys())]
    problems += [f"'{name}' is not the model's" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"'{name}' has shape {found[name]}, expected {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name]) != expected[name]
    ]
    if problems:
        raise UserError(f"{source.where} does not fit its configuration: {first_few(problems, '; ')}")


def load_tensors(
    table: Table, ours: Mapping[str, Tensor], source: TensorSource, dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """Our tensors, after `check_tensors`; one that lies in the file as it is ours stays there, memory-mapped, and the
    others are copied, the largest first, so that little more memory is taken than they need themselves."""
    largest_first = sorted(table, key=lambda entry: -ours[entry.ours].numel())
    return {entry.ours: _load(entry, ours[entry.ours].shape, source, dtype, device) for entry in largest_first}


def their_tensors(table: Table, ours: Mapping[str, Tensor], vocab_size: int) -> dict[str, Tensor]:
    """The inverse of `load_tensors`: our tensors under their names, in their layout; padding rows are left out."""
    result = {}
    for entry in table:
        for name, laid_out in _as_theirs(entry, ours[entry.ours], vocab_size):
            theirs = laid_out.contiguous()
            shares = theirs.nbytes != theirs.untyped_storage().nbytes()  # which files do not want
            result[name] = theirs.clone() if shares else theirs
    return result


def widest_dtype(table: Table, source: TensorSource) -> torch.dtype:
    """The dtype that holds every tensor of `source` exactly, but for those that keep their own; `UserError` if one that
    is to be a weight is a code of some quantization."""
    stored = source.dtypes
    names = [name for entry in table if not entry.as_stored for name in entry.theirs]
    dtypes = {name: stored[name] for name in names if name in stored}  # `check_tensors` names those that are missing
    for name, dtype in dtypes.items():
        if not dtype.is_floating_point:
            raise UserError(f"{source.where}: '{name}' is {dtype}, no weight; take the model's unquantized release")
    return functools.reduce(torch.promote_types, dtypes.values()) if dtypes else torch.float32


def _load(entry: Entry, shape: torch.Size, source: TensorSource, dtype: torch.dtype, device: torch.device) -> Tensor:
    if len(entry.theirs) == 1:
        whole = entry.layouts[0].to_ours(source.read(entry.theirs[0]))
        dtype = whole.dtype if entry.as_stored else dtype
        if whole.shape == shape and whole.dtype == dtype and whole.is_contiguous():
            return whole.to(device)
    target = torch.empty(shape, dtype=dtype, device=device)
    start = 0
    for name, layout in zip(entry.theirs, entry.layouts, strict=True):
        piece = layout.to_ours(source.read(name))
        target[start : start + len(piece)] = piece
        start += len(piece)
    target[start:] = 0
    return target


def _as_theirs(entry: Entry, ours: Tensor, vocab_size: int) -> Iterator[tuple[str, Tensor]]:
    whole = ours[:vocab_size] if entry.padded else ours
    pieces = [whole] if entry.rows is None else ours.split(entry.rows)
    for name, layout, piece in zip(entry.theirs, entry.layouts, pieces, strict=True):
        yield name, layout.to_theirs(piece)
