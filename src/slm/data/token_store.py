"""Tokens on disk: a folder of memory-mapped files, made once and reused while its inputs are unchanged.

train.bin, val.bin     token ids, uint16 or uint32, one document after another
meta.json              counts, checksums, sources, the tokenizer's fingerprint
slm_tokenizer.json     the tokenizer itself
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock

from slm.data.documents import Document, Split
from slm.errors import UserError
from slm.json_file import read_json_object
from slm.new_folder import new_folder
from slm.schema import Count, NonNegativeInt, Text, checked
from slm.tokenizers.base import Tokenizer, load_tokenizer

META_FILE = "meta.json"
FORMAT = 1
SPLITS = ("train", "val")
_BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class TokenStore:
    """An opened store.

    Attributes:
        folder: where it lies.
        meta: the content of ``meta.json``.
        tokenizer: the one that made the tokens.
    """

    folder: Path
    meta: dict[str, Any]
    tokenizer: Tokenizer

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """Open a store.

        Raises:
            UserError: it is missing, damaged, of another format, or its files have not the size that was written.
        """
        meta = _read_meta(folder)
        for split in SPLITS:
            file = folder / f"{split}.bin"
            expected = meta[split]["tokens"] * np.dtype(meta["dtype"]).itemsize
            size = file.stat().st_size if file.is_file() else 0
            if size != expected:
                raise UserError(f"{file} has {size} bytes, expected {expected}; delete the folder and prepare again")
        return cls(folder, meta, load_tokenizer(folder))

    def tokens(self, split: str) -> np.ndarray:
        """Token ids (n,) of "train" or "val", memory-mapped, read-only."""
        if self.meta[split]["tokens"] == 0:
            return np.empty(0, dtype=self.meta["dtype"])  # an empty file cannot be mapped
        return np.memmap(self.folder / f"{split}.bin", dtype=self.meta["dtype"], mode="r")

    def tokens_per_byte(self, split: str) -> float:
        """Tokens a UTF-8 byte of text: what turns nats per token into bits per byte."""
        return self.meta[split]["tokens"] / self.meta[split]["bytes"]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over both splits and the tokenizer: equal fingerprints train alike."""
        return self.meta["fingerprint"]


def write_store(folder: Path, split: Split, tokenizer: Tokenizer) -> TokenStore:
    """Tokenize `split` into a new store, made beside `folder` and renamed into it."""
    with new_folder(folder) as partial:
        dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
        meta: dict[str, Any] = {
            "format": FORMAT,
            "dtype": dtype.name,
            "vocab_size": tokenizer.vocab_size,
            "tokenizer": {"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint},
        }
        for name in SPLITS:
            meta[name] = _write_split(partial / f"{name}.bin", getattr(split, name), tokenizer, dtype)
        parts = [meta["train"]["sha256"], meta["val"]["sha256"], tokenizer.fingerprint]
        meta["fingerprint"] = hashlib.sha256(" ".join(parts).encode()).hexdigest()
        tokenizer.save(partial)
        (partial / META_FILE).write_text(json.dumps(meta, indent=1), encoding="utf-8")
    return TokenStore.open(folder)


def cached_store(folder: Path, make: Callable[[Path], TokenStore]) -> TokenStore:
    """The store at `folder`, made by ``make(folder)`` if it is not there yet or is damaged.

    Processes that want the same store at the same time make it once: the others wait.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            try:
                return TokenStore.open(folder)
            except UserError:
                shutil.rmtree(folder)
        return make(folder)


@dataclass(frozen=True)
class _SplitMeta:
    tokens: NonNegativeInt
    bytes: NonNegativeInt
    documents: Count


@dataclass(frozen=True)
class _Meta:
    """What of ``meta.json`` is relied on."""

    dtype: Literal["uint16", "uint32"]
    vocab_size: Count
    fingerprint: Text
    train: _SplitMeta
    val: _SplitMeta


def _read_meta(folder: Path) -> dict[str, Any]:
    file = folder / META_FILE
    if not file.is_file():
        raise UserError(f"'{folder}' is no token store ({META_FILE} is missing); make one: slm-prepare")
    meta = read_json_object(file)
    if meta.get("format", FORMAT) != FORMAT:
        raise UserError(f"'{folder}' has token store format {meta['format']}, expected {FORMAT}; prepare again")
    try:
        checked(_Meta, meta)
    except UserError as error:
        found = str(error).splitlines()[0].partition(";")[0]  # what is wrong, not how a setting would be mended
        raise UserError(f"{file} is damaged ({found}); delete the folder and prepare again") from None
    return meta


def _write_split(
    file: Path, documents: Sequence[Document], tokenizer: Tokenizer, dtype: np.dtype[Any]
) -> dict[str, Any]:
    digest = hashlib.sha256()
    n_tokens = n_bytes = 0
    sources = []
    with file.open("wb") as out:
        for batch in _batches(documents):
            for document, ids in zip(batch, tokenizer.encode_batch([d.text for d in batch]), strict=True):
                raw = document.text.encode()
                tokens = np.array(_framed(ids, document, tokenizer), dtype=dtype)
                digest.update(tokens.data)
                out.write(tokens.data)
                n_tokens += len(tokens)
                n_bytes += len(raw)
                sources.append({"name": document.name, "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()})
    return {
        "tokens": n_tokens,
        "bytes": n_bytes,
        "documents": len(documents),
        "sha256": digest.hexdigest(),
        "sources": sources,
    }


def _framed(ids: list[int], document: Document, tokenizer: Tokenizer) -> list[int]:
    """With what stands before a text, where it begins, and the end of text, where it ends."""
    begin = tokenizer.begin_ids if document.begins else ()
    return [*begin, *ids, tokenizer.eos_id] if document.ends else [*begin, *ids]


def _batches(documents: Sequence[Document]) -> Iterator[list[Document]]:
    """Groups of about a million characters, so that a tokenizer can work on several at once."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
