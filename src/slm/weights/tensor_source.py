"""Named tensors that lie in files and are read one at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from slm.errors import UserError

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class TensorSource(Protocol):
    """Where weights come from; `where` names the file or folder, for messages."""

    where: str

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of every tensor, by name."""

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]:
        """Of every tensor, by name."""

    def read(self, name: str) -> Tensor:
        """The tensor, in its own dtype, on the CPU."""


class SafetensorsFiles:
    """Tensors of one or several safetensors files, memory-mapped: reading one copies nothing.

    Args:
        files: paths; no two hold a tensor of the same name.
        where: for messages.

    Raises:
        UserError: a file is missing or damaged.
    """

    def __init__(self, files: Iterable[Path], where: str) -> None:
        self.where = where
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self._places: dict[str, tuple[Path, str]] = {}
        for file in files:
            self._list(file)

    def _list(self, file: Path) -> None:
        with _opened(file) as content:
            for name in content.keys():  # noqa: SIM118  # no mapping, it only has this method
                tensor = content.get_slice(name)
                if name in self._places:
                    raise UserError(f"{file} holds '{name}', which {self._places[name][0].name} holds too")
                if tensor.get_dtype() not in _DTYPES:
                    known = ", ".join(_DTYPES)
                    raise UserError(f"{file}: '{name}' is {tensor.get_dtype()}, allowed are {known}; save it as one")
                self.shapes[name] = tuple(tensor.get_shape())
                self.dtypes[name] = _DTYPES[tensor.get_dtype()]
                self._places[name] = (file, name)

    def read(self, name: str) -> Tensor:
        """A view of the mapped file, which stays mapped as long as the view lives."""
        file, stored = self._places[name]
        with _opened(file) as content:
            tensor: Tensor = content.get_tensor(stored)
        return tensor

    def rename(self, rule: Callable[[str], str | None]) -> None:
        """Give every tensor the name that `rule` makes of its own; one that gets None is left out."""
        new = {name: rule(name) for name in self._places}
        self._places = {renamed: self._places[name] for name, renamed in new.items() if renamed}
        self.shapes = {renamed: self.shapes[name] for name, renamed in new.items() if renamed}
        self.dtypes = {renamed: self.dtypes[name] for name, renamed in new.items() if renamed}


def safetensors_in(folder: Path, name: str = "model.safetensors") -> SafetensorsFiles:
    """The weights of a folder: ``model.safetensors``, or the shards that ``model.safetensors.index.json`` lists.

    Raises:
        UserError: there are none, a shard is missing, or a file is damaged.
    """
    index = folder / f"{name}.index.json"
    if (folder / name).is_file() or not index.is_file():
        return SafetensorsFiles([folder / name], str(folder / name))
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is no index of shards ({error!r}); fetch it again") from None
    if any(not isinstance(shard, str) or Path(shard).name != shard for shard in shards):
        raise UserError(f"{index} names a shard outside its folder; fetch it again")
    source = SafetensorsFiles([folder / shard for shard in shards], str(index))
    for name in sorted(places.keys() - source.shapes.keys()):
        raise UserError(f"{index} lists '{name}' in {places[name]}, which does not hold it; fetch both again")
    return source


class _opened:  # noqa: N801  # used as a function
    """`safe_open` with its errors in our words."""

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise UserError(f"'{file.parent}' holds no complete model: {file.name} is missing")
        try:
            self._content = safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is damaged ({error}); fetch or make it again") from None

    def __enter__(self) -> safe_open:
        return self._content.__enter__()

    def __exit__(self, *error: object) -> None:
        self._content.__exit__(*error)
