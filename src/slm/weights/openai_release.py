"""GPT-2 as OpenAI released it: downloaded once, and its TensorFlow checkpoint read by TensorFlow's own reader."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slm.errors import UserError, did_you_mean
from slm.extras import check_installed
from slm.files.reading import read_json_object
from slm.models.config import ModelConfig
from slm.weights.families.gpt2 import MATRICES, NORMS, gpt2
from slm.weights.foreign_config import ForeignConfig
from slm.weights.name_table import SAME, Entry, Layout
from slm.weights.pretrained import stored_config
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
    cache = Path(os.environ.get("SLM_CACHE_DIR") or "~/.cache/slm") / "openai_gpt2"  # as `conf/data/*.yaml` have it
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
            _check_hparams(place / file, name, release.hparams)
    return place


def _check_hparams(file: Path, name: str, expected: Mapping[str, int]) -> None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        wrong = [
            f"{key} {found.get(key)} (expected {need})" for key, need in expected.items() if found.get(key) != need
        ]
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}); delete it to have it fetched again") from error
    if wrong:
        raise UserError(f"{file} is not that of {name}: {', '.join(wrong)}; delete it and name another mirror")


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
    """OpenAI's variable names (openai/gpt-2 `src/model.py`)."""
    table = [
        Entry("token_embedding.weight", ("model/wte",), padded=True),
        Entry("position_embedding.weight", ("model/wpe",)),
    ]
    for layer in range(config.modules.transformer.n_layers):
        ours, theirs = f"transformer.blocks.{layer}", f"model/h{layer}"
        for name, our_name in MATRICES.items():  # Hugging Face took OpenAI's names, with dots for slashes
            their_name = f"{theirs}/{name.replace('.', '/')}"
            table.append(Entry(f"{ours}.{our_name}.weight", (f"{their_name}/w",), _CONV1D))
            table.append(Entry(f"{ours}.{our_name}.bias", (f"{their_name}/b",), SAME))
        for name, our_name in NORMS.items():
            table += _norm(f"{ours}.{our_name}", f"{theirs}/{name}")
    return [*table, *_norm("transformer.final_norm", "model/ln_f")]


def _norm(ours: str, theirs: str) -> list[Entry]:
    return [Entry(f"{ours}.weight", (f"{theirs}/g",)), Entry(f"{ours}.bias", (f"{theirs}/b",))]


class TensorFlowCheckpoint:
    """A folder with ``checkpoint`` and the files it names (``model.ckpt.*``): all variables, an optimizer's too.

    TensorFlow, which verifies the CRC-32C of each, runs in a process of its own: damaged files end it by a `CHECK` more
    often than by an error. The tensors come through a pipe, so that only one at a time is in memory twice.
    """

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        _refuse_other_folders(folder)
        check_installed("tensorflow", "tf", f"the TensorFlow checkpoint in '{folder}'")
        self._process: Any = _reading(folder)
        weakref.finalize(self, _end, self._process, os.getpid())
        variables: Mapping[str, tuple[str, list[int]]] = self._answer()["variables"]
        for name, (kind, _) in variables.items():
            if kind not in _DTYPES:
                raise UserError(
                    f"the checkpoint in '{folder}' is not of GPT-2's layout: '{name}' is {kind}, "
                    f"read are {', '.join(_DTYPES)}; save it with tf.compat.v1.train.Saver"
                )
        self.shapes: Mapping[str, tuple[int, ...]] = {name: tuple(shape) for name, (_, shape) in variables.items()}
        self.dtypes: Mapping[str, torch.dtype] = {name: _DTYPES[kind] for name, (kind, _) in variables.items()}

    def read(self, name: str) -> Tensor:
        """The variable, in its own dtype, on the CPU; the memory is the caller's."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(name).encode() + b"\n")
            self._process.stdin.flush()
        n_bytes: int = self._answer()["bytes"]
        tensor = torch.empty(self.shapes[name], dtype=self.dtypes[name])
        content = tensor.reshape(-1).view(torch.uint8).numpy().data
        if n_bytes != len(content) or self._process.stdout.readinto(content) != n_bytes:
            raise self._damaged(_how_it_ended(self._process))
        return tensor

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {"error": _how_it_ended(self._process)}
        if "error" in answer:
            raise self._damaged(answer["error"])
        return answer

    def _damaged(self, reason: str) -> UserError:
        return UserError(f"the checkpoint in '{self.where}' is damaged or not whole ({reason}); fetch it again")


def _reading(folder: Path) -> subprocess.Popen[bytes]:
    """A program of its own and no child of `multiprocessing`, which would import the main module again."""
    return subprocess.Popen(
        [sys.executable, "-c", "from slm.weights.tf_reader import main; main()", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"},
        start_new_session=True,  # Ctrl-C is for us
    )


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    process.kill()  # where it only closed its pipe
    status = process.wait()
    return f"TensorFlow's reader ended with {signal.Signals(-status).name if status < 0 else f'status {status}'}"


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
