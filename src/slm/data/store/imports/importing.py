"""Ids that another tool wrote to a token store, bit for bit, checked against the vocabulary that is named for them."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from slm.data.config import CorpusConfig
from slm.data.corpora import find_files
from slm.data.documents.source import grouped
from slm.data.store.data_card import write_card
from slm.data.store.imports.divide import by_name, hold_out
from slm.data.store.imports.id_array import IdArray
from slm.data.store.imports.recognise import id_arrays
from slm.data.store.preparation import partial_store
from slm.data.store.scan import MOST_UNITS, UNIT_BYTES
from slm.data.store.token_store import (
    FORMAT,
    META_FILE,
    TokenStore,
    cached_store,
    meta_of,
    token_dtype,
    write_meta,
)
from slm.errors import UserError, first_few
from slm.files.reading import digest_of
from slm.files.writing import new_file
from slm.notices import notice
from slm.progress import byte_progress
from slm.tokenizers.base import TOKENIZER_FILE, Tokenizer

_SHOWN = 24  # ids, read as text
_SPLITS = ("train", "val")  # nobody gives a test part as ids
_NOTHING = {"file": "", "tokens": 0, "bytes": 0, "others": 0, "sha256": ""}


def no_text() -> Iterator[str]:
    """In the place of training texts; raises `UserError` when it is read."""
    raise UserError(
        "data=tokens holds ids without their text, so no vocabulary can be fitted to it; name the one that they were "
        "made with: tokenizer=tiktoken (GPT-2's), tokenizer=hf_gpt2 tokenizer.name=…, tokenizer=saved tokenizer.path=… "
        "or tokenizer=characters tokenizer.path=… (nanoGPT's characters)"
    )
    yield


class Import:
    """The files of a corpus of ids, on their way to a store."""

    def __init__(self, corpus: CorpusConfig) -> None:
        """`UserError` as of `slm.data.store.imports.recognise.id_arrays`, or if files are missing."""
        self._corpus = corpus
        path, patterns, val_path, dtype = (corpus.settings[key] for key in ("path", "patterns", "val_path", "dtype"))
        self._named = by_name(_files(path, patterns), has_val=bool(val_path))
        self.train = id_arrays(self._named.train, dtype)
        self.val = id_arrays(_files(val_path, patterns) if val_path else self._named.val, dtype)

    def found(self, cache: Path, tokenizer: Tokenizer) -> TokenStore:
        """The store below `cache` of these ids in this vocabulary, made if it is not there."""
        folder = cache / f"{self._corpus.kind}-{self._key(tokenizer)}"
        return cached_store(folder, lambda place: self.make(place, tokenizer))

    def make(self, folder: Path, tokenizer: Tokenizer) -> TokenStore:
        """Make the store `folder`; as of `slm.data.store.preparation.Preparation.make`, but that nothing is kept of a
        copy that was broken off. `UserError` also if an id is none of the vocabulary."""
        with partial_store(folder, self._key(tokenizer)) as (store, _):
            if not any((place / META_FILE).is_file() for place in (folder, store)):
                self._fill(store, tokenizer)
        return TokenStore.open(folder)

    def _key(self, tokenizer: Tokenizer) -> str:
        """Another one whenever the store would be another; no id is read for it."""
        ids = [[array.identity() for array in arrays] for arrays in (self.train, self.val)]
        inputs = [FORMAT, tokenizer.fingerprint, self._corpus.val_fraction, *ids]
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]

    def _fill(self, store: Path, tokenizer: Tokenizer) -> None:
        tokenizer.save(store)
        marks = {tokenizer.eos_id, *tokenizer.begin_ids}
        train, val = (self.train, self.val) if self.val else hold_out(self.train, self._corpus.val_fraction, marks)
        self._tell(train, val, tokenizer)
        shards, counts = [], {split: _Documents(marks) for split in _SPLITS}
        with byte_progress("copying ids", sum(_size(array) for array in (*train, *val))) as report:
            for split, arrays in (("train", train), ("val", val)):
                enough = max(UNIT_BYTES, sum(map(_size, arrays)) // MOST_UNITS)
                for number, group in enumerate(grouped(arrays, _size, enough)):
                    file = store / f"{split}_{number:05d}.bin"
                    copied = _copy(group, file, tokenizer, counts[split], report)
                    shards.append({**dict.fromkeys(_SPLITS, _NOTHING), split: copied})
        if not any(count.are_told for count in counts.values()):
            notice(f"data: no id ends or begins a text ({first_few([*map(str, marks)])}): each part is one document")
        documents = {split: max(1, count.of.total()) for split, count in counts.items()}
        meta = meta_of(shards, documents, tokenizer)
        counts["train"].of.update(counts["val"].of)
        write_card(store, self._card(meta, tokenizer, counts["train"].of))
        write_meta(store, meta)  # last: it says that all is there

    def _tell(self, train: Sequence[IdArray], val: Sequence[IdArray], tokenizer: Tokenizer) -> None:
        forms = first_few(list(dict.fromkeys(f"{array.form}, {array.dtype.name}" for array in (*train, *val))), "; ")
        held = f"{len(val)} of validation" if self.val else f"the last {100 * self._corpus.val_fraction:g} % validate"
        notice(f"data: token ids ({forms}): {len(train)} file(s) of training, {held}")
        if others := [str(file) for file in self._named.left_out]:
            notice(f"data: left out as files of other parts, by their names: {first_few(others)}")
        if (pickled := train[0].file.with_name("meta.pkl")).is_file():
            notice(f"data: '{pickled}' is not read (a pickle runs code); the vocabulary is tokenizer={tokenizer.kind}")
        first = train[0].mapped()[:_SHOWN]
        if (first >= 0).all() and (first < tokenizer.vocab_size).all():
            notice(f"data: the ids begin {tokenizer.decode(first.tolist())!r}")

    def _card(self, meta: Mapping[str, Any], tokenizer: Tokenizer, documents: Mapping[Path, int]) -> dict[str, Any]:
        splits = {split: {key: meta[split][key] for key in ("documents", "bytes", "tokens")} for split in _SPLITS}
        n_bytes, n_tokens = (sum(of[key] for of in splits.values()) for key in ("bytes", "tokens"))
        return {
            **splits,
            "bytes_per_token": n_bytes / n_tokens,
            "tokenizer": {"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size},
            "corpus": self._corpus.kind,
            "val_fraction": self._corpus.val_fraction,
            **asdict(self._corpus.filters),
            "dropped": {},
            "faults": {},
            "sources": [
                {"name": file.name, "bytes": file.stat().st_size, "sha256": digest_of(file), "documents": count}
                for file, count in documents.items()
            ],
        }


def _files(path: str | list[str], patterns: list[str]) -> list[Path]:
    """Those that `path` names, sorted, without those of token stores of our own."""
    found = {file for one in ([path] if isinstance(path, str) else path) for file in find_files(one, patterns)}
    others = sorted(file for file in found if not (file.parent / TOKENIZER_FILE).is_file())
    if found and not others:
        raise UserError(f"data.path: '{path}' is a token store already; train on it: data=prepared data.path={path}")
    return others


def _size(array: IdArray) -> int:
    return array.length * array.dtype.itemsize


class _Documents:
    """Counts documents: by what files' indices say, else from a token that is none of `marks` behind one that is."""

    def __init__(self, marks: Collection[int]) -> None:
        self.of: Counter[Path] = Counter()  # by the file in which they begin
        self.are_told = False  # by an index, or by any of the marks
        self._marks, self._between = list(marks), True

    def add(self, array: IdArray, ids: np.ndarray) -> None:
        between = np.isin(ids, self._marks)
        if array.ends is None:
            self.of[array.file] += int((~between & np.concatenate([[self._between], between[:-1]])).sum())
        self._between = bool(between[-1])
        self.are_told |= array.ends is not None or bool(between.any())


def _copy(
    arrays: Sequence[IdArray], file: Path, tokenizer: Tokenizer, documents: _Documents, report: Any
) -> dict[str, Any]:
    """`arrays` one after another into a shard's `file`; what `slm.data.store.shard.write_shard` tells of a split."""
    digest, n_bytes, dtype = hashlib.sha256(), 0, token_dtype(tokenizer.vocab_size)
    with new_file(file) as out:
        for array in arrays:
            for ids in array.blocks():
                _check(ids, array, tokenizer)
                copied = np.ascontiguousarray(ids, dtype)
                digest.update(copied.data)
                out.write(copied.data)
                n_bytes += int(tokenizer.bytes_of_id[copied].sum())
                documents.add(array, copied)
                report(ids.nbytes)
            documents.of[array.file] += 0 if array.ends is None else len(array.ends)
    n_tokens = sum(array.length for array in arrays)
    return {"file": file.name, "tokens": n_tokens, "bytes": n_bytes, "others": 0, "sha256": digest.hexdigest()}


def _check(ids: np.ndarray, array: IdArray, tokenizer: Tokenizer) -> None:
    for found in (int(ids.max()), int(ids.min())):
        if not 0 <= found < tokenizer.vocab_size:
            raise UserError(
                f"data.path: '{array.file}' holds the id {found:,}, and tokenizer={tokenizer.kind} has ids up to "
                f"{tokenizer.vocab_size - 1:,}; name the vocabulary that it was made with (tokenizer=…), or, if it "
                "does not say how wide its ids are, another data.dtype"
            )
