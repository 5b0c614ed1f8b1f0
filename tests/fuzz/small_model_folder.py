"""Whole files to start mutations from: the smallest model, tokenizer, store and checkpoint there are."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from released_gpt2 import VOCAB, write_vocabulary

from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.tokenizers.bpe import BpeTokenizer
from slm.tokenizers.pieces import SimpleTokenizer
from slm.training.run.checkpoint_io import write_checkpoint
from slm.weights.bundle import write_bundle
from slm.weights.hugging_face import write_hugging_face

_TEXT = "One two, 3 three.\nFour a b c d e f. " * 4
_SHAPE: dict[str, Any] = {
    "name": "gpt",
    "params": {"max_seq_len": 8, "vocab_multiple": 1},
    "modules": {"transformer": {"dim": 4, "n_layers": 1, "n_heads": 1}},
}


def _written(write: Callable[[Path], object]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "folder"
        write(folder)
        return {file.name: file.read_bytes() for file in folder.iterdir()}


@functools.cache
def _model() -> tuple[ModelConfig, dict[str, torch.Tensor], BpeTokenizer]:
    tokenizer = BpeTokenizer.create([_TEXT], vocab_size=264)
    config = ModelConfig.from_dict(_SHAPE).with_vocab_size(tokenizer.vocab_size)
    torch.manual_seed(0)
    return config, build_model(config).state_dict(), tokenizer


@functools.cache
def bundle_files() -> dict[str, bytes]:
    """A bundle, with a tokenizer of characters: its file is small."""
    tokenizer = SimpleTokenizer.create([_TEXT])
    config = ModelConfig.from_dict(_SHAPE).with_vocab_size(tokenizer.vocab_size)
    torch.manual_seed(0)
    return _written(lambda folder: write_bundle(folder, config, build_model(config).state_dict(), tokenizer, {}))


@functools.cache
def hugging_face_files() -> dict[str, bytes]:
    """A Hugging Face folder."""
    return _written(lambda folder: write_hugging_face(folder, *_model(), {}))


HF_CONFIG: dict[str, Any] = json.loads(hugging_face_files()["config.json"])


HPARAMS = {"n_vocab": len(VOCAB), "n_ctx": 8, "n_embd": 4, "n_head": 1, "n_layer": 1}


@functools.cache
def gpt2_vocabulary_files() -> dict[str, bytes]:
    """``encoder.json`` and ``vocab.bpe``."""

    def write(folder: Path) -> None:
        folder.mkdir()
        write_vocabulary(folder)

    return _written(write)


@functools.cache
def store_files() -> dict[str, bytes]:
    """A token store."""
    from small_store import Split, write_store

    from slm.data.documents.source import Document

    split = Split([Document("a", _TEXT)], [Document("b", _TEXT)])
    return _written(lambda folder: write_store(folder, split, SimpleTokenizer.create([_TEXT])))


def checkpoint_bytes() -> bytes:
    """A checkpoint with what `Resumed` reads of it."""
    content = {
        "global_step": 1,
        "state_dict": {"model.a": torch.zeros(2)},
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "WindowDataModule": {"position": 0},
    }
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "last.ckpt"
        write_checkpoint(content, file)
        return file.read_bytes()
