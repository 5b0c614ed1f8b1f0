"""Named tensors that lie in files and are read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from slm.errors import UserError
from slm.files.reading import read_json_object

_DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I8": torch.int8, "U8": torch.uint8},
}
_LONGEST_HEADER = 16 << 20  # bytes; a header has about a hundred for each tensor


class TensorSource(Protocol):
    """Where weights come from, by name; `where` is the file or folder, for messages."""

    where: str

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]: ...

    def read(self, name: str) -> Tensor:
        """The tensor, in its own dtype, on the CPU."""


class TensorsInMemory:
    """Tensors that are there already."""

    def __init__(self, tensors: Mapping[str, Tensor], where: str) -> None:
        self.tensors, self.where = tensors, where
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self.dtypes = {name: tensor.dtype for name, tensor in tensors.items()}

    def read(self, name: str) -> Tensor:
        return self.tensors[name]


@dataclass(frozen=True)
class _Stored:
    file: Path
    name: str
    kind: str
    shape: tuple[int, ...]


class SafetensorsFiles:
    """Tensors of safetensors files, memory-mapped: reading one copies nothing. No two may hold one of the same name."""

    def __init__(self, files: Iterable[Path], where: str) -> None:
        self.where = where
        self._stored: dict[str, _Stored] = {}
        for file in files:
            with _opened(file) as content:
                for name in content.keys():  # noqa: SIM118  # no mapping, it only has this method
                    if name in self._stored:
                        raise UserError(f"{file} holds '{name}', which {self._stored[name].file.name} holds too")
                    tensor = content.get_slice(name)
                    self._stored[name] = _Stored(file, name, tensor.get_dtype(), tuple(tensor.get_shape()))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: stored.shape for name, stored in self._stored.items()}

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        # a kind that no weights have is refused only now, since files hold masks of others, which are left out
        for name, stored in self._stored.items():
            if stored.kind not in _DTYPES:
                raise UserError(
                    f"{stored.file}: '{name}' is {stored.kind}, allowed are {', '.join(_DTYPES)}; save it as one"
                )
        return {name: _DTYPES[stored.kind] for name, stored in self._stored.items()}

    def read(self, name: str) -> Tensor:
        """A view of the mapped file, which stays mapped as long as the view lives."""
        with _opened(self._stored[name].file) as content:
            return content.get_tensor(self._stored[name].name)

    def rename(self, rule: Callable[[str], str | None]) -> None:
        """Give every tensor the name that `rule` makes of its own, None to leave it out; `UserError` if two get one."""
        old: dict[str, str] = {}
        for name in self._stored:
            renamed = rule(name)
            if renamed in old:
                raise UserError(f"{self.where} holds '{renamed}' twice, as '{old[renamed]}' and as '{name}'")
            if renamed:
                old[renamed] = name
        self._stored = {renamed: self._stored[name] for renamed, name in old.items()}


def safetensors_in(folder: Path, name: str = "model.safetensors") -> SafetensorsFiles:
    """The weights of a folder: ``model.safetensors``, or the shards that ``model.safetensors.index.json`` lists."""
    index = folder / f"{name}.index.json"
    if (folder / name).is_file() or not index.is_file():
        return SafetensorsFiles([folder / name], str(folder / name))
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise UserError(f"{index} is no index of shards: weight_map must name each tensor's file; fetch it again")
    shards = sorted(set(places.values()))
    if any(Path(shard).name != shard for shard in shards):
        raise UserError(f"{index} names a shard outside its folder; fetch it again")
    source = SafetensorsFiles([folder / shard for shard in shards], str(index))
    for name in sorted(places.keys() - source.shapes.keys()):
        raise UserError(f"{index} lists '{name}' in {places[name]}, which does not hold it; fetch both again")
    return source


@contextmanager
def _opened(file: Path) -> Iterator[safe_open]:
    """`safe_open` with its errors in our words; a header, which is read whole, has a longest size."""
    if not file.is_file():
        raise UserError(f"'{file.parent}' holds no complete model: {file.name} is missing")
    try:
        with file.open("rb") as content:
            header, size = int.from_bytes(content.read(8), "little"), file.stat().st_size
        if size < 8 or header > min(_LONGEST_HEADER, size - 8):
            raise UserError(f"{file} is damaged (its header would be {header:,} bytes long); fetch or make it again")
        opened = safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}); fetch or make it again") from None
    with opened as tensors:
        yield tensors
