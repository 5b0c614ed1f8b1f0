"""From settings to a token store: the one that is there, or a new one."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import slm
from slm.data.config import (
    CONVERSATIONS,
    IDS_KIND,
    PART_NAMES,
    PREFERENCES,
    STORE_KIND,
    UNPAIRED,
    CorpusConfig,
    Reading,
)
from slm.data.documents.hf_datasets import DatasetSource
from slm.data.documents.source import Source, file_identity, file_sources
from slm.data.parts import InParts
from slm.data.store.imports.importing import Import, no_text
from slm.data.store.preparation import Preparation, content_key
from slm.data.store.processes import NumProcesses, Processes
from slm.data.store.scan import Scan
from slm.data.store.selection import Selection
from slm.data.store.token_store import FORMAT, TokenStore, cached_store
from slm.errors import UserError
from slm.notices import notice
from slm.registry import CORPORA, TOKENIZERS
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.build import build_tokenizer, settings_of

_NO_TEXT = {
    CONVERSATIONS: ("conversations", "task=sft"),
    PREFERENCES: ("pairs of answers", "task=dpo"),
    UNPAIRED: ("answers with labels", "task=kto"),
}
"""What corpora of no running text hold, and what trains on them."""
_NO_TEST_PART = "name its files (data.test_path=…), cut it off (data.test_bytes=…), or score all of them: split=all"


def find_store(corpus: CorpusConfig, tokenizer: Mapping[str, Any]) -> TokenStore:
    """The token store for these settings: the prepared one, the cached one, or a new one. `tokenizer` is a ``kind`` and
    that kind's settings; its vocabulary is fitted on the training part. `UserError` if files are missing, empty or not
    text, or the tokenizer's settings do not fit."""
    if corpus.kind == STORE_KIND:
        return _prepared_store(corpus)
    if corpus.kind == IDS_KIND:
        return Import(corpus).found(_cache(corpus), build_tokenizer(tokenizer, no_text()))
    sources = told_sources(corpus)
    key = inputs_key(corpus, sources, tokenizer)
    folder = _cache(corpus) / f"{corpus.kind}-{tokenizer['kind']}-{key}"
    return cached_store(folder, lambda place: _prepare(corpus, sources, tokenizer, place))


def prepare_store(
    corpus: CorpusConfig, tokenizer: Mapping[str, Any], folder: Path, num_processes: NumProcesses = "auto"
) -> TokenStore:
    """Make the store `folder` out of the corpus, with a tokenizer fitted on its training part; raises as `find_store`.
    After a kill the next call alike goes on; what comes out is the same to the bit, with any number of processes."""
    if corpus.kind == IDS_KIND:
        return Import(corpus).make(folder, build_tokenizer(tokenizer, no_text()))
    return _prepare(corpus, told_sources(corpus), tokenizer, folder, num_processes)


def _prepare(
    corpus: CorpusConfig,
    sources: InParts[Source],
    tokenizer: Mapping[str, Any],
    folder: Path,
    num_processes: NumProcesses = "auto",
) -> TokenStore:
    with Processes(num_processes) as processes:
        preparation = Preparation(corpus, sources, processes)
        return preparation.make(folder, inputs_key(corpus, sources, tokenizer), partial(build_tokenizer, tokenizer))


def tokenize_with(corpus: CorpusConfig, tokenizer: Tokenizer, part: str | None = None) -> TokenStore:
    """The (cached) store of a corpus in the vocabulary of a tokenizer that exists, a run's own say. Where only one
    `part` is wanted and has files of its own, it holds no other. `UserError` if there is no such part."""
    if corpus.kind == STORE_KIND:
        store = _prepared_store(corpus)
        check_usable(store, tokenizer, part)
        return store
    if corpus.kind == IDS_KIND:
        return Import(corpus).found(_cache(corpus), tokenizer)
    sources = told_sources(corpus)
    if part == "test" and part not in sources.held and corpus.held_out.test_bytes is None:
        raise UserError(f"split=test: the data has no test part; {_NO_TEST_PART}")
    if part in sources.held and not corpus.filters.dedupe:  # which looks at all of them
        sources = InParts([], {part: sources.held[part]})
    cache = _cache(corpus)
    cache.mkdir(parents=True, exist_ok=True)
    with _scanned(corpus, sources, cache) as (preparation, found, selection):
        key = _short(f"{FORMAT} {tokenizer.fingerprint} {content_key(found, selection)}")
        folder = cache / f"{corpus.kind}-{key}"
        return cached_store(folder, lambda place: preparation.make(place, key, lambda _: tokenizer))


def check_usable(store: TokenStore, tokenizer: Tokenizer, part: str | None) -> None:
    """Raise `UserError` for a prepared store in another vocabulary, or without the wanted `part`."""
    if store.tokenizer.fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"the token store '{store.folder}' was made with another tokenizer than the model's; "
            "give the text itself (data=text data.path=…)"
        )
    if part is not None and part not in store.meta:
        raise UserError(f"split={part}: the token store '{store.folder}' has no such part; {_NO_TEST_PART}")


def training_texts(corpus: CorpusConfig) -> Iterator[str]:
    """What a corpus gives to train on, read when it is asked for."""
    if corpus.kind == IDS_KIND:
        yield from no_text()
    with _scanned(corpus, corpus_sources(corpus), None) as (preparation, _, selection):
        yield from preparation.training_texts(selection)


@contextmanager
def _scanned(
    corpus: CorpusConfig, sources: InParts[Source], place: Path | None
) -> Iterator[tuple[Preparation, Scan, Selection]]:
    """With the scan in `place`, or in the system's folder for what is temporary, until the block ends."""
    with Processes("auto") as processes, tempfile.TemporaryDirectory(dir=place, prefix=".slm.scan.") as folder:
        preparation = Preparation(corpus, sources, processes)
        yield preparation, *preparation.scan(Path(folder))


def told_sources(corpus: CorpusConfig) -> InParts[Source]:
    """As `corpus_sources`, and what there is to tell of them is told."""
    sources = corpus_sources(corpus)
    for line in sources.told:
        notice(line)
    return sources


def corpus_sources(corpus: CorpusConfig) -> InParts[Source]:
    """What a corpus consists of, in order; a file of several names once. `UserError` if one is not there."""
    if corpus.kind in _NO_TEXT:
        holds, task = _NO_TEXT[corpus.kind]
        raise UserError(
            f"data={corpus.kind} holds {holds}, which have no running text to prepare; train on them with "
            f"{task}, or name text (data=text data.path=…)"
        )
    found = CORPORA.get(corpus.kind)(**corpus.settings)
    parts = found if isinstance(found, InParts) else InParts(found, {})
    for part in parts.held:
        if getattr(corpus.held_out, f"{part}_bytes") is not None:
            raise UserError(
                f"data.{part}_bytes: the {PART_NAMES[part]} part is known already; leave it out, or leave out data."
                f"{part}_path (of parts known by name: data.split_by_name=false; of data sets: data.{part}_split=null)"
            )
    held = {part: _sources(of_part, corpus.reading) for part, of_part in parts.held.items()}
    return InParts(_sources(parts, corpus.reading), held, parts.told)


def _sources(found: Sequence[Path | DatasetSource], reading: Reading) -> list[Source]:
    once: dict[Path, Path] = {}
    for file in found:
        if isinstance(file, Path):
            once.setdefault(file.resolve(), file)
    files = file_sources(list(once.values()), reading) if once else []
    return [*files, *(other.source(reading) for other in found if not isinstance(other, Path))]


def inputs_key(corpus: CorpusConfig, sources: InParts[Source], tokenizer: Mapping[str, Any]) -> str:
    """Another one whenever the store would be another."""
    tokenizer_files = TOKENIZERS.get(tokenizer["kind"]).source_files(**settings_of(tokenizer))
    held = {part: [source.identity() for source in of_part] for part, of_part in sources.held.items()}
    inputs = {
        "format": FORMAT,
        "slm": slm.__version__,
        "sources": [source.identity() for source in sources],
        "reading": asdict(corpus.reading),
        "filters": asdict(corpus.filters),
        "val_fraction": corpus.val_fraction,
        "tokenizer": dict(tokenizer),
        "tokenizer_files": [file_identity(file) for file in tokenizer_files],
        **{name: size for name, size in asdict(corpus.held_out).items() if size is not None},
        **({"held": held} if held else {}),
    }
    return _short(json.dumps(inputs, sort_keys=True))


def _short(inputs: str) -> str:
    return hashlib.sha256(inputs.encode()).hexdigest()[:16]


def _cache(corpus: CorpusConfig) -> Path:
    return Path(corpus.cache_dir).expanduser() / "token_stores"


def _prepared_store(corpus: CorpusConfig) -> TokenStore:
    path = corpus.settings["path"]
    if not path:
        raise UserError("data.path is empty; give the folder that slm-prepare made")
    return TokenStore.open(Path(os.path.expanduser(path)))
