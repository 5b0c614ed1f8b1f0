"""Text to token store: scan, choose, fit the tokenizer, tokenize; after a kill, what is finished is not done again."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slm.data.config import CorpusConfig
from slm.data.documents.source import Source
from slm.data.faults import Faults
from slm.data.store.data_card import write_card
from slm.data.store.partial_store import PartialStore, partial_store
from slm.data.store.processes import Processes
from slm.data.store.progress import progress
from slm.data.store.scan import Scan, Unit, scan, units_of
from slm.data.store.selection import Selection, select
from slm.data.store.shard import SentTokenizer, ShardTask
from slm.data.store.token_store import META_FILE, SPLITS, TokenStore, meta_of, write_meta
from slm.errors import UserError
from slm.notices import notice
from slm.tokenizers.base import TOKENIZER_FILE, Tokenizer
from slm.tokenizers.load import load_tokenizer

MakeTokenizer = Callable[[Iterable[str]], Tokenizer]
"""From the texts that are trained on, which it may iterate at most once."""


@dataclass(frozen=True)
class Preparation:
    """A corpus on its way to a store."""

    corpus: CorpusConfig
    sources: Sequence[Source]
    processes: Processes
    units: list[Unit] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", units_of(self.sources))

    def make(self, folder: Path, key: str, make_tokenizer: MakeTokenizer) -> TokenStore:
        """Make the store `folder`, or go on with making it, unless a kill left it there whole; the `key` is another one
        for other text or other settings.

        Raises:
            UserError: there is nothing in the text, or a fault that is refused.
            StoppedError: something else broke; what is finished is kept.
        """
        with partial_store(folder, key) as partial:
            if not any((place / META_FILE).is_file() for place in (folder, partial.store)):
                self._fill(partial, self.scan(partial.work / "scan"), make_tokenizer)
        return TokenStore.open(folder)

    def scan(self, folder: Path) -> Scan:
        """The first pass; its outcome is kept in `folder`."""
        with progress("reading", sum(unit.size for unit in self.units)) as report:
            found = scan(self.units, folder, self.corpus.reading.on_bad, self.processes, report)
        if not any(len(records) for records in found.records):
            told = f" ({'; '.join(found.faults.lines())})" if found.faults.counts else ""
            more = f" and {len(self.sources) - 1:,} more" if len(self.sources) > 1 else ""
            raise UserError(f"data.path: there is no text in '{self.sources[0].place}'{more}{told}")
        for line in found.faults.lines():
            notice(f"data: {line}")
        return found

    def select(self, found: Scan) -> Selection:
        """Which documents go where."""
        return select(found.records, self.corpus.filters, self.corpus.val_fraction)

    def training_texts(self, selection: Selection) -> Iterator[str]:
        """What is trained on, in order; read when it is asked for."""
        with progress("fitting the tokenizer", selection.n_bytes) as report:
            for unit, chosen in zip(self.units, selection.units, strict=True):
                for split, document in chosen.of(unit, Faults(self.corpus.reading.on_bad)):
                    if split == "train":
                        yield document.text
                    report(len(document.text))

    def _fill(self, partial: PartialStore, found: Scan, make_tokenizer: MakeTokenizer) -> None:
        selection = self.select(found)
        if not (partial.store / TOKENIZER_FILE).is_file():
            _save(make_tokenizer(self.training_texts(selection)), partial)
        tokenizer = load_tokenizer(partial.store)
        meta = meta_of(self._shards(partial, selection, tokenizer), selection.documents, tokenizer)
        write_card(partial.store, self._card(found, selection, meta, tokenizer))
        write_meta(partial.store, meta)  # last: it says that all is there

    def _shards(self, partial: PartialStore, selection: Selection, tokenizer: Tokenizer) -> list[dict[str, Any]]:
        sent, on_bad, notes = (
            SentTokenizer(tokenizer, partial.store),
            self.corpus.reading.on_bad,
            partial.work / "shards",
        )
        tasks = [
            ShardTask(unit, chosen, on_bad, sent, partial.store, notes / f"{unit.number:05d}.json")
            for unit, chosen in zip(self.units, selection.units, strict=True)
        ]
        done = {task.unit.number: shard for task in tasks if (shard := task.done()) is not None}
        left = [task for task in tasks if task.unit.number not in done]
        if done:
            notice(f"going on: {len(done)} of {len(tasks)} shards are there already")
        with progress("tokenizing", selection.n_bytes) as report:
            report(sum(shard[split]["bytes"] for shard in done.values() for split in shard))
            for index, written in self.processes.run(left, report):
                done[left[index].unit.number] = written
        return [done[task.unit.number] for task in tasks]

    def _card(self, found: Scan, selection: Selection, meta: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
        splits = {split: {key: meta[split][key] for key in ("documents", "bytes", "tokens")} for split in SPLITS}
        return {
            **splits,
            "bytes_per_token": sum(of["bytes"] for of in splits.values()) / sum(of["tokens"] for of in splits.values()),
            "tokenizer": {"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size},
            "corpus": self.corpus.kind,
            "val_fraction": self.corpus.val_fraction,
            **asdict(self.corpus.filters),
            "dropped": selection.dropped,
            "faults": found.faults.as_dict(),
            "sources": found.sources,
        }


def content_key(found: Scan, selection: Selection) -> str:
    """Of the text itself and where it goes: the same wherever it lies and whenever it was written."""
    digest = hashlib.sha256()
    for records, chosen in zip(found.records, selection.units, strict=True):
        for name in ("content", "begins", "ends"):
            digest.update(records[name].tobytes())
        digest.update(chosen.codes.tobytes())
        digest.update(repr(chosen.cut).encode())
    return digest.hexdigest()


def _save(tokenizer: Tokenizer, partial: PartialStore) -> None:
    """Whole or not at all."""
    folder = partial.work / "tokenizer"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tokenizer.save(folder)
    os.replace(folder / TOKENIZER_FILE, partial.store / TOKENIZER_FILE)
