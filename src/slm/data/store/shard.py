"""A unit of text to a shard: a file of token ids for each split."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from slm.data.documents.source import Document, grouped
from slm.data.faults import Faults, OnBad
from slm.data.store.processes import Report
from slm.data.store.scan import Unit
from slm.data.store.selection import SPLIT_NAMES, Chosen
from slm.data.store.token_store import others_file, token_dtype
from slm.files.writing import new_file
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.load import load_tokenizer

_BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class SentTokenizer:
    """A tokenizer that another process reads from the `folder` where it is saved."""

    tokenizer: Tokenizer
    folder: Path

    def __reduce__(self) -> Any:
        return _received, (self.folder, type(self.tokenizer).__module__)


@lru_cache(maxsize=1)
def _received(folder: Path, module: str) -> SentTokenizer:
    import_module(module)  # a plugin's kind registers itself
    return SentTokenizer(load_tokenizer(folder), folder)


@dataclass(frozen=True)
class ShardTask:
    """Tokenizes a unit into files in a folder, and says in `notes`, last of all, what was written."""

    unit: Unit
    chosen: Chosen
    on_bad: OnBad
    sent: SentTokenizer
    folder: Path
    notes: Path

    def run(self, report: Report) -> dict[str, Any]:
        documents = self.chosen.of(self.unit, Faults(self.on_bad))
        written = write_shard(self.folder, self.unit.number, documents, self.sent.tokenizer, report)
        with new_file(self.notes) as file:
            file.write(json.dumps(written).encode())
        return written


def write_shard(
    folder: Path, number: int, documents: Iterable[tuple[str, Document]], tokenizer: Tokenizer, report: Report
) -> dict[str, Any]:
    """Tokenize `documents`, each with its split, into ``<split>_<number>.bin``; `report` is told of bytes of text.
    Given back are of each split ``file``, ``tokens``, ``bytes`` (of UTF-8 text), ``sha256`` (of the file) and
    ``others``: how many tokens stand for other bytes than their ids do as a rule. One without tokens has no file."""
    files = {split: folder / f"{split}_{number:05d}.bin" for split in SPLIT_NAMES.values()}
    with ExitStack() as stack:
        outs = {split: _Out(stack.enter_context(new_file(file)), tokenizer) for split, file in files.items()}
        for batch in grouped(documents, lambda marked: len(marked[1].text), _BATCH_CHARACTERS):
            arrays = tokenizer.encode_arrays([document.text for _, document in batch])
            report(sum(outs[split].write(document, ids) for (split, document), ids in zip(batch, arrays, strict=True)))
    return {split: out.finish(files[split]) for split, out in outs.items()}


class _Out:
    """One split's file on its way."""

    def __init__(self, file: BinaryIO, tokenizer: Tokenizer) -> None:
        self._file, self._tokenizer = file, tokenizer
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._digest = hashlib.sha256()
        self.n_tokens = self._n_bytes = self._n_others = 0
        self._others: list[np.ndarray] = []  # (2, k): where they are, and their bytes

    def write(self, document: Document, ids: np.ndarray) -> int:
        """The ids, with what stands before a text where it begins and its end where it ends; gives the text's bytes."""
        of = self._tokenizer
        begin = of.begin_ids if document.begins else ()
        end = (of.eos_id,) if document.ends else ()
        tokens = np.concatenate([begin, ids, end], dtype=self._dtype, casting="unsafe")
        self._digest.update(tokens.data)
        self._file.write(tokens.data)
        if not of.spells_exactly() or any(of.bytes_of_id[i] for i in (*begin, *end)):
            sizes = np.zeros(len(tokens), dtype=np.int64)
            sizes[len(begin) : len(tokens) - len(end)] = of.text_bytes(document.text, ids)
            where = np.flatnonzero(sizes != of.bytes_of_id[tokens])
            self._others.append(np.stack([where + self.n_tokens, sizes[where]]))
            self._n_others += len(where)
        n_bytes = len(document.text.encode())
        self.n_tokens += len(tokens)
        self._n_bytes += n_bytes
        return n_bytes

    def finish(self, file: Path) -> dict[str, Any]:
        """Remove the tokens' `file` if it has none; write beside it those whose bytes their ids do not tell, if any."""
        if not self.n_tokens:
            file.unlink()
        if self._n_others:
            with new_file(others_file(file)) as out:
                out.write(np.concatenate(self._others, axis=1).astype("<u4").tobytes())
        counts = {"tokens": self.n_tokens, "bytes": self._n_bytes, "others": self._n_others}
        return {"file": file.name, **counts, "sha256": self._digest.hexdigest()}
