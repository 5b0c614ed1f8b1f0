"""Text to token store: scan, choose, fit the tokenizer, tokenize; after a kill, what is finished is not done again."""

import glob
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from slm.data.config import CorpusConfig
from slm.data.documents.source import Source
from slm.data.faults import Faults
from slm.data.parts import InParts
from slm.data.store.data_card import write_card
from slm.data.store.processes import Processes, StoppedError
from slm.data.store.scan import Scan, is_small, scan, units_of
from slm.data.store.selection import Selection, select
from slm.data.store.shard import SentTokenizer, ShardTask
from slm.data.store.source_table import source_rows
from slm.data.store.token_store import META_FILE, TokenStore, meta_of, write_meta
from slm.errors import UserError
from slm.files.reading import read_json_object
from slm.files.writing import UNFINISHED
from slm.notices import notice
from slm.progress import byte_progress
from slm.tokenizers.base import TOKENIZER_FILE, Tokenizer
from slm.tokenizers.load import load_tokenizer

MakeTokenizer = Callable[[Iterable[str]], Tokenizer]
"""From the texts that are trained on, which it may iterate at most once."""
_GOES_ON = "what is finished is kept, the same again goes on from there"


class Preparation:
    """A corpus on its way to a store."""

    def __init__(self, corpus: CorpusConfig, sources: InParts[Source], processes: Processes) -> None:
        self.corpus, self.sources = corpus, sources
        self.units = units_of(sources, sources.held)
        self.processes = Processes(1) if is_small(self.units) else processes

    def make(self, folder: Path, key: str, make_tokenizer: MakeTokenizer) -> TokenStore:
        """Make the store `folder`, or go on with making it, unless a kill left it there whole; the `key` is another one
        for other text or other settings. `UserError`: there is nothing in the text, or a fault that is refused;
        `StoppedError`: something else broke, what is finished is kept."""
        with partial_store(folder, key) as (store, work):
            if not any((place / META_FILE).is_file() for place in (folder, store)):
                self._fill(store, work, make_tokenizer)
        return TokenStore.open(folder)

    def scan(self, folder: Path) -> tuple[Scan, Selection]:
        """The first pass, whose outcome is kept in `folder`, and what follows from it."""
        with byte_progress("reading", sum(unit.size for unit in self.units)) as report:
            found = scan(self.units, folder, self.corpus.reading.on_bad, self.processes, report)
        self._refuse_empty(found)
        for line in found.faults.lines():
            notice(f"data: {line}")
        corpus, parts = self.corpus, [unit.part for unit in self.units]
        return found, select(found.records, corpus.filters, corpus.val_fraction, corpus.held_out, parts)

    def _refuse_empty(self, found: Scan) -> None:
        parts: list[tuple[str | None, list[Source]]] = [(None, self.sources), *self.sources.held.items()]
        for part, sources in parts:
            units = zip(self.units, found.records, strict=True)
            if sources and not any(len(records) for unit, records in units if unit.part == part):
                told = f" ({'; '.join(found.faults.lines())})" if found.faults.counts else ""
                more = f" and {len(sources) - 1:,} more" if len(sources) > 1 else ""
                setting = f"data.{part}_path" if part else "data.path"
                raise UserError(f"{setting}: there is no text in '{sources[0].place}'{more}{told}")

    def training_texts(self, selection: Selection) -> Iterator[str]:
        with byte_progress("fitting the tokenizer", selection.n_bytes) as report:
            for unit, chosen in zip(self.units, selection.units, strict=True):
                for split, document in chosen.of(unit, Faults(self.corpus.reading.on_bad)):
                    if split == "train":
                        yield document.text
                    report(len(document.text))

    def _fill(self, store: Path, work: Path, make_tokenizer: MakeTokenizer) -> None:
        found, selection = self.scan(work / "scan")
        if not (store / TOKENIZER_FILE).is_file():
            make_tokenizer(self.training_texts(selection)).save(store)
        tokenizer = load_tokenizer(store)
        shards = self._shards(store, work / "shards", selection, tokenizer)
        meta = meta_of(shards, selection.documents, tokenizer)
        write_card(store, self._card(found, selection, meta, tokenizer))
        write_meta(store, meta)  # last: it says that all is there

    def _shards(self, store: Path, notes: Path, selection: Selection, tokenizer: Tokenizer) -> list[dict[str, Any]]:
        sent, on_bad = SentTokenizer(tokenizer, store), self.corpus.reading.on_bad
        tasks = [
            ShardTask(unit, chosen, on_bad, sent, store, notes / f"{unit.number:05d}.json")
            for unit, chosen in zip(self.units, selection.units, strict=True)
        ]
        done = {task.unit.number: read_json_object(task.notes) for task in tasks if task.notes.is_file()}
        left = [task for task in tasks if task.unit.number not in done]
        if done:
            notice(f"going on: {len(done)} of {len(tasks)} shards are there already")
        with byte_progress("tokenizing", selection.n_bytes) as report:
            report(sum(shard[split]["bytes"] for shard in done.values() for split in shard))
            for index, written in self.processes.run(left, report):
                done[left[index].unit.number] = written
        return [done[task.unit.number] for task in tasks]

    def _card(self, found: Scan, selection: Selection, meta: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
        counts = ("documents", "bytes", "tokens")
        splits = {split: {key: meta[split][key] for key in counts} for split in selection.documents}
        return {
            **splits,
            "bytes_per_token": sum(of["bytes"] for of in splits.values()) / sum(of["tokens"] for of in splits.values()),
            "tokenizer": {"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size},
            "corpus": self.corpus.kind,
            "val_fraction": self.corpus.val_fraction,
            **asdict(self.corpus.held_out),
            **asdict(self.corpus.filters),
            "dropped": selection.dropped,
            "forms": found.faults.forms,
            "faults": found.faults.as_dict(),
            "table": source_rows(found, selection),
            "sources": found.sources,
        }


def content_key(found: Scan, selection: Selection) -> str:
    """Of the text itself and where it goes: the same wherever it lies and whenever it was written."""
    digest = hashlib.sha256()
    for records, chosen in zip(found.records, selection.units, strict=True):
        for name in ("content", "begins", "ends"):
            digest.update(records[name].tobytes())
        digest.update(chosen.codes.tobytes())
        digest.update(repr(chosen.where_cut()).encode())
    return digest.hexdigest()


@contextmanager
def partial_store(folder: Path, key: str) -> Iterator[tuple[Path, Path]]:
    """What is there of the store `folder` so far, and a place for what is not to stay (the scan, a note for each
    finished shard). When the block ends without an error the store becomes `folder`, which may hold one that a kill
    left there whole. After a `UserError` nothing stays, since with what mends it the inputs are others; after all else
    the next call with the same key goes on. `UserError` if another process is making it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.making")
    root = folder.with_name(f".{folder.name}.{key}.partial")
    store, work = root / "store", root / "work"
    try:
        with FileLock(lock, timeout=0):
            try:
                _remove_others(folder, root)
                for place in (store, work, work / "scan", work / "shards"):
                    place.mkdir(parents=True, exist_ok=True)
                    for file in place.glob(f"*{UNFINISHED}"):  # what a killed process was writing
                        file.unlink(missing_ok=True)
                yield store, work
                if not folder.is_dir():
                    shutil.rmtree(work)
                    os.replace(store, folder)
                shutil.rmtree(root)
            except StoppedError as error:
                raise (error if _GOES_ON in str(error) else StoppedError(f"{error}; {_GOES_ON}")) from error
            except UserError:
                shutil.rmtree(root, ignore_errors=True)
                raise
            except KeyboardInterrupt:
                raise KeyboardInterrupt("interrupted; the same again goes on from what is finished") from None
            except OSError as error:
                where = f"'{error.filename}': " if error.filename else ""
                raise StoppedError(
                    f"making '{folder}' broke off ({where}{error.strerror or error}); {_GOES_ON}"
                ) from error
            finally:
                lock.unlink(missing_ok=True)
    except Timeout:
        raise UserError(f"another process is making '{folder}'; wait for it, or name another folder") from None


def _remove_others(folder: Path, own: Path) -> None:
    for other in folder.parent.glob(f".{glob.escape(folder.name)}.*.partial"):
        if other != own and other.is_dir() and {entry.name for entry in other.iterdir()} <= {"store", "work"}:
            notice(f"removed '{other}', begun from other text or with other settings")
            shutil.rmtree(other)
