"""What `torch.save` wrote, by the reader of torch that makes tensors and plain types alone: no code in a file runs."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slm.errors import UserError
from slm.files.reading import read_json_object
from slm.weights.tensor_source import TensorSource, tensors_in_memory

_COMPILED = "_orig_mod."  # what `torch.compile` puts before names


def read_torch_file(file: Path) -> Any:
    """What lies in `file`; tensors stay there, memory-mapped, where its form allows. `UserError` if it is more than
    tensors and plain types, or damaged."""
    try:
        is_zip = zipfile.is_zipfile(file)
        if is_zip:
            with zipfile.ZipFile(file) as archive:  # compressed, a few bytes could stand for gigabytes
                if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                    raise ValueError("it is compressed, as torch never writes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of another pickle protocol, ahead of its refusal
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip or None)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0][:120]
        raise UserError(
            f"{file} is a pickle, which could run any code when read, and torch's safe reader refuses it ({reason}); "
            "take the model's safetensors, or write them where you trust the file: model.save_pretrained(…)"
        ) from None
    except (
        OSError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{file} is damaged, or no file of torch ({reason}); fetch or make it again") from None


def tensors_of(content: Any, file: Path) -> TensorSource:
    """A state dict's tensors, without what `torch.compile` puts before their names; `UserError` if it is none."""
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{file} holds no tensors by name (a state dict)")
    tensors = {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    if dense := [name for name, tensor in tensors.items() if tensor.layout != torch.strided or tensor.is_quantized]:
        raise UserError(f"{file}: '{dense[0]}' is sparse or quantized, no plain tensor; save the model's own weights")
    return tensors_in_memory(tensors, str(file)).renamed(lambda name: name.removeprefix(_COMPILED))


def torch_files_in(folder: Path, name: str = "pytorch_model.bin") -> TensorSource:
    """The weights of a folder: one file, or the shards that its index lists."""
    index = folder / f"{name}.index.json"
    if (folder / name).is_file() or not index.is_file():
        return tensors_of(read_torch_file(folder / name), folder / name)
    places = read_json_object(index).get("weight_map")
    shards = sorted(set(places.values())) if isinstance(places, dict) else []
    if not shards or any(not isinstance(shard, str) or Path(shard).name != shard for shard in shards):
        raise UserError(f"{index} is no index of shards beside it; fetch it again")
    stored = [tensors_of(read_torch_file(folder / shard), folder / shard).stored for shard in shards]
    return TensorSource(str(index), {name: tensor for shard in stored for name, tensor in shard.items()})
