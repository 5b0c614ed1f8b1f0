"""Named tensors that lie in files and are read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from slm.errors import UserError
from slm.files.reading import read_json_object

_LONGEST_HEADER = 16 << 20  # bytes; a header has about a hundred for each tensor
_DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I8": torch.int8, "U8": torch.uint8},
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that `read` gives, in its own dtype, on the CPU."""

    shape: tuple[int, ...]
    dtype: torch.dtype | str  # the file's name of one that no weights have, as of masks, which are left out
    read: Callable[[], Tensor]
    where: str  # the file or folder, for messages


@dataclass
class TensorSource:
    """Where weights come from, by name; `where` is the file or folder, for messages."""

    where: str
    stored: Mapping[str, StoredTensor]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: stored.shape for name, stored in self.stored.items()}

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        """`UserError` for one that no weights have."""
        dtypes: dict[str, torch.dtype] = {}
        for name, stored in self.stored.items():
            if isinstance(stored.dtype, str):
                allowed = ", ".join(_DTYPES)
                raise UserError(f"{stored.where}: '{name}' is {stored.dtype}, allowed are {allowed}; save it as one")
            dtypes[name] = stored.dtype
        return dtypes

    def read(self, name: str) -> Tensor:
        return self.stored[name].read()

    def without_copy(self, copy: str, of: str, mend: str) -> TensorSource:
        """Without a tensor that some files store a second time, tied to another; `UserError` if the two differ."""
        if copy not in self.stored:
            return self
        if of in self.stored and not torch.equal(self.read(copy), self.read(of)):
            raise UserError(f"{self.where}: '{copy}' differs from '{of}', though the model ties them; {mend}")
        return self.renamed(lambda name: None if name == copy else name)

    def renamed(self, rule: Callable[[str], str | None]) -> TensorSource:
        """With the names that `rule` makes of these, None to leave one out; `UserError` if two get one."""
        old: dict[str, str] = {}
        for name in self.stored:
            new = rule(name)
            if new and old.setdefault(new, name) != name:
                raise UserError(f"{self.where} holds '{new}' twice, as '{old[new]}' and as '{name}'")
        return TensorSource(self.where, {new: self.stored[name] for new, name in old.items()})


def tensors_in_memory(tensors: Mapping[str, Tensor], where: str) -> TensorSource:
    """Tensors that are there already."""
    read = tensors.__getitem__
    given = {n: StoredTensor(tuple(t.shape), t.dtype, partial(read, n), where) for n, t in tensors.items()}
    return TensorSource(where, given)


def safetensors_in(folder: Path, name: str = "model.safetensors") -> TensorSource:
    """The weights of a folder, memory-mapped (reading copies nothing): one file, or the shards that its index lists."""
    index = folder / f"{name}.index.json"
    if (folder / name).is_file() or not index.is_file():
        return TensorSource(str(folder / name), _stored_in([folder / name]))
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise UserError(f"{index} is no index of shards: weight_map must name each tensor's file; fetch it again")
    shards = sorted(set(places.values()))
    if any(Path(shard).name != shard for shard in shards):
        raise UserError(f"{index} names a shard outside its folder; fetch it again")
    source = TensorSource(str(index), _stored_in([folder / shard for shard in shards]))
    for missing in sorted(places.keys() - source.stored.keys()):
        raise UserError(f"{index} lists '{missing}' in {places[missing]}, which does not hold it; fetch both again")
    return source


def _stored_in(files: Iterable[Path]) -> dict[str, StoredTensor]:
    stored: dict[str, StoredTensor] = {}
    for file in files:
        with _opened(file) as content:
            for name in content.keys():  # noqa: SIM118  # no mapping, it only has this method
                if name in stored:
                    raise UserError(f"{file} holds '{name}', which another file beside it holds too; fetch them again")
                tensor = content.get_slice(name)
                kind = tensor.get_dtype()
                read = partial(_read, file, name)
                stored[name] = StoredTensor(tuple(tensor.get_shape()), _DTYPES.get(kind, kind), read, str(file))
    return stored


def _read(file: Path, name: str) -> Tensor:
    """A view of the mapped file, which stays mapped as long as the view lives."""
    with _opened(file) as content:
        return content.get_tensor(name)


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
