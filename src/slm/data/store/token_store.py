"""Tokens on disk: a folder of memory-mapped files, made once and reused while its inputs are unchanged."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock

from slm.errors import UserError
from slm.files.reading import read_json_object
from slm.files.writing import new_file
from slm.notices import notice
from slm.schema import Count, NonNegativeInt, Text, checked_file
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.load import load_tokenizer

META_FILE = "meta.json"
FORMAT = 3
_READ = (2, FORMAT)  # of 2, it is not known which tokens stand for other bytes than their ids do
SPLITS = ("train", "val", "test")  # a store of no test part has no such split
_BLOCK = 1 << 20  # tokens that are looked at at a time
WHOLE = "all"  # of an opened store: the splits one after another; of a single text that is the text


class ShardedTokens:
    """The tokens of files, of at least one each, one after another, mapped: what `WindowDataset` asks of an array."""

    def __init__(self, files: Sequence[Path], lengths: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._arguments = files, lengths, dtype
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._starts = self._ends - lengths
        self.shards = [np.memmap(file, dtype=dtype, mode="r") for file in files]

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.shards else 0

    def __reduce__(self) -> Any:
        """To a process that is not forked go the paths, not the tokens."""
        return ShardedTokens, self._arguments

    def __getitem__(self, where: np.ndarray) -> np.ndarray:
        """The tokens at positions `where`, of any shape, each in ``0 .. len - 1``."""
        if len(self.shards) == 1:
            return self.shards[0][where]
        shard_of = np.searchsorted(self._ends, where, side="right")
        found = np.empty(where.shape, self.dtype)
        for shard in np.unique(shard_of).tolist():
            here = shard_of == shard
            found[here] = self.shards[shard][where[here] - self._starts[shard]]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate([np.empty(0, self.dtype), *self.shards]).astype(dtype or self.dtype, copy=False)


def others_file(file: Path) -> Path:
    """Beside a shard's `file`: (2, k) uint32, places in it of tokens whose bytes are not their id's, and these."""
    return file.with_suffix(".bytes")


class TokenBytes:
    """Bytes of tokens by their ids, (vocab_size,), but for those that are written down by position in each shard's
    `others_file`, if any: of an unknown word, of a character that a vocabulary normalises, of a token before a text."""

    def __init__(self, of_id: np.ndarray, lengths: Sequence[int], others: Sequence[Path | None]) -> None:
        self.of_id = of_id
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._starts = self._ends - lengths
        self._others = others

    def __call__(self, where: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Of the tokens `ids` at positions `where` of the split, of any one shape."""
        found = self.of_id[ids]
        for shard in np.unique(np.searchsorted(self._ends, where, side="right")).tolist():
            if (file := self._others[shard]) is not None:
                places, sizes = np.memmap(file, dtype="<u4", mode="r").reshape(2, -1)
                local = where - self._starts[shard]
                at = np.minimum(np.searchsorted(places, local), len(places) - 1)
                listed = places[at] == local
                found[listed] = sizes[at[listed]]
        return found


@dataclass(frozen=True)
class TokenStore:
    """An opened store."""

    folder: Path
    meta: dict[str, Any]  # the content of ``meta.json``, and under "all" the same of all splits
    tokenizer: Tokenizer  # the one that made the tokens

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """`UserError` if it is missing, damaged, of another format, or a file has not the size that was written."""
        meta = _read_meta(folder)
        counts, splits = ("tokens", "bytes", "documents"), [meta[split] for split in SPLITS if split in meta]
        whole: dict[str, Any] = {key: sum(split[key] for split in splits) for key in counts}
        whole["shards"] = [shard for split in splits for shard in split["shards"]]
        for shard in whole["shards"]:
            file = folder / shard["file"]
            _check_size(file, shard["tokens"] * np.dtype(meta["dtype"]).itemsize)
            if others := shard.get("others"):
                _check_size(others_file(file), 8 * others)
        return cls(folder, {**meta, WHOLE: whole}, load_tokenizer(folder))

    def tokens(self, split: str) -> ShardedTokens:
        """Token ids (n,) of "train", "val", "test" (if there is one) or "all", memory-mapped, read-only."""
        shards = self.meta[split]["shards"]
        files = [self.folder / shard["file"] for shard in shards]
        return ShardedTokens(files, [shard["tokens"] for shard in shards], np.dtype(self.meta["dtype"]))

    def token_bytes(self, split: str) -> TokenBytes:
        """How many bytes of UTF-8 text each token stands for: what turns nats per token into bits per byte. Of a store
        of format 2, made by a tokenizer whose ids do not tell it, those of the ids in proportion to the split's."""
        shards, of_id = self.meta[split]["shards"], self.tokenizer.bytes_of_id
        if self.meta["format"] < FORMAT and not self.tokenizer.spells_exactly():
            tokens = self.tokens(split)
            blocks = (np.arange(start, min(start + _BLOCK, len(tokens))) for start in range(0, len(tokens), _BLOCK))
            by_id = sum(int(of_id[tokens[block]].sum()) for block in blocks)
            of_id = of_id * (self.meta[split]["bytes"] / max(1, by_id))
            notice(f"'{self.folder}' was made by an older version: bits per byte are estimates; prepare it again")
        files = [others_file(self.folder / shard["file"]) if shard.get("others") else None for shard in shards]
        return TokenBytes(of_id, [shard["tokens"] for shard in shards], files)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the splits and the tokenizer: equal fingerprints train alike."""
        return self.meta["fingerprint"]


def meta_of(
    shards: Sequence[Mapping[str, Mapping[str, Any]]], documents: Mapping[str, int], tokenizer: Tokenizer
) -> dict[str, Any]:
    """What ``meta.json`` says of these shards, as `slm.data.store.shard.write_shard` tells of each, and of the splits
    that have `documents`."""
    meta: dict[str, Any] = {
        "format": FORMAT,
        "dtype": token_dtype(tokenizer.vocab_size).name,
        "vocab_size": tokenizer.vocab_size,
        "tokenizer": {"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint},
    }
    splits = [split for split in SPLITS if split in documents]
    for split in splits:
        written = [shard[split] for shard in shards]
        filled = [{key: of[key] for key in ("file", "tokens", "others", "sha256")} for of in written if of["tokens"]]
        meta[split] = {
            "tokens": sum(of["tokens"] for of in written),
            "bytes": sum(of["bytes"] for of in written),
            "documents": documents[split],
            "sha256": _joint_sha256([shard["sha256"] for shard in filled]),
            "shards": filled,
        }
    meta["fingerprint"] = _joint_sha256([*(meta[split]["sha256"] for split in splits), tokenizer.fingerprint])
    return meta


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Into a store whose other files are there."""
    with new_file(folder / META_FILE) as file:
        file.write(json.dumps(meta, indent=1).encode())


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Two bytes a token while all ids fit."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _joint_sha256(digests: Sequence[str]) -> str:
    """Of a single one itself."""
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def cached_store(folder: Path, make: Callable[[Path], TokenStore]) -> TokenStore:
    """The store at `folder`, made by ``make(folder)`` if missing or damaged; once, however many processes want it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            try:
                return TokenStore.open(folder)
            except UserError:
                shutil.rmtree(folder)
        return make(folder)


def _check_size(file: Path, expected: int) -> None:
    size = file.stat().st_size if file.is_file() else 0
    if size != expected:
        raise UserError(f"{file} has {size} bytes, expected {expected}; delete the folder and prepare again")


@dataclass(frozen=True)
class _Shard:
    file: Text
    tokens: Count
    others: NonNegativeInt = 0


@dataclass(frozen=True)
class _SplitMeta:
    tokens: NonNegativeInt
    bytes: NonNegativeInt
    documents: NonNegativeInt
    shards: list[_Shard]


@dataclass(frozen=True)
class _Meta:
    """What of ``meta.json`` is relied on."""

    dtype: Literal["uint16", "uint32"]
    vocab_size: Count
    fingerprint: Text
    train: _SplitMeta
    val: _SplitMeta
    test: _SplitMeta | None = None


def _read_meta(folder: Path) -> dict[str, Any]:
    file = folder / META_FILE
    if not file.is_file():
        raise UserError(f"'{folder}' is no token store ({META_FILE} is missing); make one: slm-prepare")
    meta = read_json_object(file)
    if meta.setdefault("format", FORMAT) not in _READ:
        raise UserError(f"'{folder}' has token store format {meta['format']}, expected {FORMAT}; prepare again")
    checked_file(_Meta, meta, file, "delete the folder and prepare again")
    return meta
