"""What is fuzzed: each target gives one file that somebody else may have made to the code that reads it.

A target takes bytes and an empty folder, and returns or raises `UserError`. Anything else it does (another error, a
process that dies, seconds, hundreds of megabytes) is a finding.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from released_gpt2 import random_variables
from small_model_folder import (
    HF_CONFIG,
    HPARAMS,
    bundle_files,
    checkpoint_bytes,
    gpt2_vocabulary_files,
    hugging_face_files,
    store_files,
)
from torch import Tensor

from slm.data.config import Reading
from slm.data.documents.source import file_sources
from slm.data.faults import Faults
from slm.data.store.token_store import TokenStore
from slm.errors import UserError
from slm.generation.prompt_file import read_prompts
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.build import build_tokenizer
from slm.tokenizers.hf_gpt2 import HfGpt2Tokenizer
from slm.tokenizers.load import load_tokenizer
from slm.training.run.checkpoint_io import read_checkpoint
from slm.training.run.folder import read_record
from slm.training.run.resume_checks import Resumed
from slm.weights.open_model import find_source, open_source
from slm.weights.openai_release import gpt2_tf_table, read_hparams
from slm.weights.pretrained import Pretrained

Target = Callable[[bytes, Path], bool]
"""Says whether the file was taken."""


@dataclass(frozen=True)
class Fuzzed:
    """A target with whole files to start from; `is_json` says that the mutator may change values in place of bytes."""

    run: Target
    seeds: tuple[bytes, ...]
    is_json: bool = False


def _reader(name: str, **reading: Any) -> Target:
    def run(data: bytes, folder: Path) -> bool:
        file = folder / name
        file.write_bytes(data)
        taken = 0
        for on_bad in ("refuse", "skip", "replace"):
            with _named_errors():
                faults = Faults(on_bad)  # type: ignore[arg-type]
                (source,) = file_sources([file], Reading(on_bad=on_bad, max_record_bytes=1 << 16, **reading))
                for span in source.spans():
                    for document in source.read(span, faults):
                        taken += len(document.text.encode())  # it must be text that can be written
        return taken > 0

    return run


class _named_errors:  # noqa: N801  # used as a function
    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> bool:
        return kind is not None and issubclass(kind, UserError)


def _in_folder(files: Mapping[str, bytes], name: str, use: Callable[[Path], Any]) -> Target:
    """`name` holds the data, beside the other files of a folder that is whole."""

    def run(data: bytes, folder: Path) -> bool:
        for other, content in files.items():
            (folder / other).write_bytes(content)
        (folder / name).write_bytes(data)
        with _named_errors():
            use(folder)
            return True
        return False

    return run


def _open_model(folder: Path) -> None:
    opened = open_source(find_source(folder))
    model = opened.model()
    ids = torch.tensor([opened.tokenizer.encode("a b")[:4] or [0]])
    model(ids)


class _Variables:
    """Those of a released GPT-2, without TensorFlow."""

    def __init__(self) -> None:
        self.where = "here"
        self.shapes = {name: values.shape for name, values in random_variables(HPARAMS).items()}
        self.dtypes = dict.fromkeys(self.shapes, torch.float32)

    def read(self, name: str) -> Tensor:
        return torch.zeros(self.shapes[name])


def _open_released(folder: Path) -> None:
    config = read_hparams(folder)
    model = Pretrained(config, gpt2_tf_table(config), _Variables(), build_tokenizer({"kind": "byte"}, []), {}).model()
    model(torch.tensor([[0, 1]]))


def _use_tokenizer(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("One two, 3.\n")
    tokenizer.decode(ids)
    stream = tokenizer.stream_decoder()
    "".join([*(stream.push(token_id) for token_id in ids), stream.flush()])


def _use_their_tokenizer(folder: Path) -> None:
    _use_tokenizer(HfGpt2Tokenizer.create((), name=str(folder)))


def _resume(folder: Path) -> None:
    file = folder / "last.ckpt"
    read_checkpoint(file)
    Resumed(file)


def _parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["one", "two", None], "n": [1, 2, 3]}), out)
    return out.getvalue()


def _zst(content: bytes) -> bytes:
    from slm.data.documents.compression import _zstd

    compressed: bytes = _zstd().compress(content)
    return compressed


def targets() -> dict[str, Fuzzed]:
    """By name; made anew, since their seeds take a moment."""
    lines = b'{"text": "one"}\n{"text": "two \\ud83d\\ude00", "n": [1, 2.5, null]}\n'
    array = json.dumps([{"text": "one"}, {"text": "two", "more": {"a": [1, 2]}}]).encode()
    bundle, theirs, store = bundle_files(), hugging_face_files(), store_files()
    saved, tokenizer_file = bundle["slm_tokenizer.json"], theirs["tokenizer.json"]
    gpt2 = gpt2_vocabulary_files()
    return {
        "text": Fuzzed(_reader("a.txt"), (b"One.\nTwo.", "\ufeffÄ\u0301 😀".encode())),
        "jsonl": Fuzzed(_reader("a.jsonl"), (lines,)),
        "json": Fuzzed(_reader("a.json"), (array, lines), is_json=True),
        "parquet": Fuzzed(_reader("a.parquet"), (_parquet(),)),
        "gz": Fuzzed(_reader("a.jsonl.gz"), (gzip.compress(lines, mtime=0),)),
        "zst": Fuzzed(_reader("a.jsonl.zst"), (_zst(lines),)),
        "prompts": Fuzzed(
            _in_folder({}, "p.jsonl", lambda f: read_prompts(f / "p.jsonl")),
            (b'{"prompt": "a", "seed": 1}\n',),
        ),
        "store_meta": Fuzzed(
            _in_folder(store, "meta.json", lambda f: TokenStore.open(f).tokens("train")), (store["meta.json"],), True
        ),
        "bundle_config": Fuzzed(_in_folder(bundle, "config.json", _open_model), (bundle["config.json"],), True),
        "bundle_weights": Fuzzed(_in_folder(bundle, "model.safetensors", _open_model), (bundle["model.safetensors"],)),
        "bundle_tokenizer": Fuzzed(
            _in_folder(bundle, "slm_tokenizer.json", lambda f: _use_tokenizer(load_tokenizer(f))), (saved,), True
        ),
        "hf_config": Fuzzed(_in_folder(theirs, "config.json", _open_model), (json.dumps(HF_CONFIG).encode(),), True),
        "hf_tokenizer": Fuzzed(_in_folder(theirs, "tokenizer.json", _use_their_tokenizer), (tokenizer_file,), True),
        "hf_index": Fuzzed(
            _in_folder(
                {
                    **{k: v for k, v in theirs.items() if k != "model.safetensors"},
                    "a.safetensors": theirs["model.safetensors"],
                },
                "model.safetensors.index.json",
                _open_model,
            ),
            (json.dumps({"weight_map": {"transformer.wte.weight": "a.safetensors"}}).encode(),),
            True,
        ),
        "gpt2_encoder": Fuzzed(_in_folder(gpt2, "encoder.json", _use_their_tokenizer), (gpt2["encoder.json"],), True),
        "gpt2_merges": Fuzzed(_in_folder(gpt2, "vocab.bpe", _use_their_tokenizer), (gpt2["vocab.bpe"],)),
        "gpt2_hparams": Fuzzed(_in_folder({}, "hparams.json", _open_released), (json.dumps(HPARAMS).encode(),), True),
        "checkpoint": Fuzzed(_in_folder({}, "last.ckpt", _resume), (checkpoint_bytes(),)),
        "run_record": Fuzzed(
            _in_folder({}, "run.json", read_record),
            (json.dumps({"overrides": ["a=1"], "sessions": []}).encode(),),
            True,
        ),
    }
