"""GPT-2 as OpenAI released it: downloaded once, and its TensorFlow checkpoint read by TensorFlow's own reader."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slm.errors import UserError, did_you_mean
from slm.extras import check_installed
from slm.files.cache import cache_folder
from slm.files.reading import read_json_object
from slm.models.config import ModelConfig
from slm.weights.families.family import ForeignConfig
from slm.weights.families.gpt2 import gpt2
from slm.weights.name_table import SAME, TRANSPOSED, Entry, Layout, Table
from slm.weights.pretrained import stored_config
from slm.weights.tensor_source import StoredTensor, TensorSource
from slm.weights.tf_reader import CHECKPOINT_FILE

BASE_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models"


@dataclass(frozen=True)
class Release:
    """One size of GPT-2."""

    folder: str  # its name on OpenAI's server
    data_bytes: int  # of ``model.ckpt.data-00000-of-00001``
    hparams: Mapping[str, int]  # what its ``hparams.json`` must say


def _hparams(n_embd: int, n_layer: int, n_head: int) -> dict[str, int]:
    return {"n_vocab": 50257, "n_ctx": 1024, "n_embd": n_embd, "n_layer": n_layer, "n_head": n_head}


RELEASES: Mapping[str, Release] = {
    "gpt2-124m": Release("124M", 497_759_232, _hparams(768, 12, 12)),
    "gpt2-355m": Release("355M", 1_419_292_672, _hparams(1024, 24, 16)),
    "gpt2-774m": Release("774M", 3_096_120_320, _hparams(1280, 36, 20)),
    "gpt2-1558m": Release("1558M", 6_230_444_800, _hparams(1600, 48, 25)),
}

# (1, in, out): the kernel of a convolution of width one
_CONV1D = Layout(lambda theirs: theirs.squeeze(0).t(), lambda ours: ours.t().unsqueeze(0))
HPARAMS_FILE = "hparams.json"
# of ``hparams.json``: what Hugging Face calls them
_THEIR_NAMES = {"n_vocab": "vocab_size", "n_ctx": "n_positions", **{n: n for n in ("n_embd", "n_head", "n_layer")}}
_DATA_FILE = "model.ckpt.data-00000-of-00001"
# in the order of download: what is small, and may show that a mirror is another model's, comes first
_FILES = (HPARAMS_FILE, "checkpoint", "encoder.json", "vocab.bpe", "model.ckpt.index", "model.ckpt.meta", _DATA_FILE)
# OpenAI published no checksums. Pinned are the size of the weights (four bytes a parameter) and the SHA-256 of the
# vocabulary, the same for all sizes, as in tiktoken's source. Every file is held against the server's Content-Length
# and Content-MD5, and TensorFlow verifies a CRC-32C of each tensor.
_SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}

_PICKLES = ("*.pkl", "*.pt", "*.pth", "*.bin")
_DTYPES = {n: getattr(torch, n) for n in ("float16", "bfloat16", "float32", "float64", "int32", "int64")}


def fetch_release(name: str, folder: Path | None = None, mirror: str | None = None) -> Path:
    """The folder of a released GPT-2, one of `RELEASES`, in `folder` or else the cache; what is missing in it is
    downloaded from OpenAI's server or the base URL `mirror`."""
    from slm.fetch.download import download  # an HTTP library takes 0.2 s to import, and most models lie here already

    if name not in RELEASES:
        raise UserError(f"there is no GPT-2 '{name}'{did_you_mean(name, RELEASES)} (known: {', '.join(RELEASES)})")
    release = RELEASES[name]
    cache = cache_folder("openai_gpt2")
    place = (cache if folder is None else folder).expanduser() / release.folder
    base = (mirror or BASE_URL).rstrip("/")
    for file in _FILES:
        download(
            f"{base}/{release.folder}/{file}",
            place / file,
            sha256=_SHA256.get(file),
            size=release.data_bytes if file == _DATA_FILE else None,
            mend=f"name a mirror of these files, or put your copy of {file} into {place}",
        )
        if file == HPARAMS_FILE:
            found = read_json_object(place / file, "delete it to have it fetched again")
            expected = release.hparams.items()
            if wrong := [f"{key} {found.get(key)} (expected {n})" for key, n in expected if found.get(key) != n]:
                words = f"is not that of {name}: {', '.join(wrong)}; delete it and name another mirror"
                raise UserError(f"{place / file} {words}")
    return place


def read_release(folder: Path) -> tuple[ModelConfig, Table, TensorSource]:
    """The shape, and the variables under the table's names; `UserError` if a file is missing or damaged."""
    config = read_hparams(folder)
    return config, gpt2_tf_table(config), tensorflow_checkpoint(folder)


def read_hparams(folder: Path) -> ModelConfig:
    """The shape that ``hparams.json`` gives; `UserError` if it is missing or damaged."""
    file = folder / HPARAMS_FILE
    if not file.is_file():
        raise UserError(f"'{folder}' is no released GPT-2: {HPARAMS_FILE} is missing")
    values = read_json_object(file)
    if missing := [name for name in _THEIR_NAMES if values.get(name) is None]:
        raise UserError(f"{file} is damaged ({', '.join(missing)} missing); fetch it again")
    theirs = ForeignConfig({name: values[hparam] for hparam, name in _THEIR_NAMES.items()}, str(file))
    config = gpt2().read_config(theirs)
    theirs.stop_if_any()
    return stored_config(config, str(file))


def gpt2_tf_table(config: ModelConfig) -> list[Entry]:
    """OpenAI's variable names (openai/gpt-2 `src/model.py`), which Hugging Face took with dots for slashes: there
    ``transformer.h.0.attn.c_attn.weight``, here ``model/h0/attn/c_attn/w``."""
    table = []
    for entry in gpt2().table(config):
        is_matrix = entry.layout is TRANSPOSED
        path, _, kind = entry.theirs[0].replace("transformer.", "model.").replace(".h.", ".h").rpartition(".")
        end = "" if "embedding" in entry.ours else "/b" if kind == "bias" else "/w" if is_matrix else "/g"
        name = path.replace(".", "/") + end
        table.append(replace(entry, theirs=(name,), layout=_CONV1D if is_matrix else SAME))
    return table


def tensorflow_checkpoint(folder: Path) -> TensorSource:
    """All variables, an optimizer's too, of a folder with ``checkpoint`` and the files it names (``model.ckpt.*``)."""
    _refuse_other_folders(folder)
    check_installed("tensorflow", "tf", f"the TensorFlow checkpoint in '{folder}'")
    reader = _Reader(folder)
    stored = {}
    for name, (kind, shape) in reader.answer()["variables"].items():
        if kind not in _DTYPES:
            raise UserError(
                f"the checkpoint in '{folder}' is not of GPT-2's layout: '{name}' is {kind}, "
                f"read are {', '.join(_DTYPES)}; save it with tf.compat.v1.train.Saver"
            )
        read = partial(reader.read, name, shape, _DTYPES[kind])
        stored[name] = StoredTensor(tuple(shape), _DTYPES[kind], read, str(folder))
    return TensorSource(str(folder), stored)


class _Reader:
    """TensorFlow, which verifies the CRC-32C of each variable, in a process of its own: damaged files end it by a
    `CHECK` more often than by an error. The tensors come through a pipe, so that only one is in memory twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # a program of its own and no child of `multiprocessing`, which would import the main module again
        self.process: Any = subprocess.Popen(
            [sys.executable, "-c", "from slm.weights.tf_reader import main; main()", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"},
            start_new_session=True,  # Ctrl-C is for us
        )
        weakref.finalize(self, _end, self.process, os.getpid())

    def read(self, name: str, shape: list[int], dtype: torch.dtype) -> Tensor:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(name).encode() + b"\n")
            self.process.stdin.flush()
        n_bytes: int = self.answer()["bytes"]
        tensor = torch.empty(shape, dtype=dtype)
        content = tensor.reshape(-1).view(torch.uint8).numpy().data
        if n_bytes != len(content) or self.process.stdout.readinto(content) != n_bytes:
            raise self._damaged(self._end())
        return tensor

    def answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {"error": self._end()}
        if "error" in answer:
            raise self._damaged(answer["error"])
        return answer

    def _end(self) -> str:
        self.process.kill()  # where it only closed its pipe
        status = self.process.wait()
        return f"TensorFlow's reader ended with {signal.Signals(-status).name if status < 0 else f'status {status}'}"

    def _damaged(self, reason: str) -> UserError:
        return UserError(f"the checkpoint in '{self.folder}' is damaged or not whole ({reason}); fetch it again")


def _end(process: subprocess.Popen[bytes], pid: int) -> None:
    if pid == os.getpid():  # a forked process has the object too, and not the child
        process.kill()
        with contextlib.suppress(OSError):
            process.communicate()


def _refuse_other_folders(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"there is no folder '{folder}'; give the one that holds {CHECKPOINT_FILE} and model.ckpt.*")
    if (folder / CHECKPOINT_FILE).is_file():
        return
    if pickles := sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern)):
        raise UserError(
            f"'{folder}' holds only a pickled dump ({pickles[0]}), and to unpickle is to run what code is in it; "
            "make a safe bundle of the original files: slm-convert source=gpt2-124m format=gpt2_tf to=slm out=…"
        )
    raise UserError(f"'{folder}' holds no TensorFlow checkpoint: {CHECKPOINT_FILE} is missing; fetch it again")
