"""From settings to a token store: find files, read, split, fit the tokenizer, tokenize."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import slm
from slm.data.config import STORE_KIND, CorpusConfig
from slm.data.documents import Split, split_documents
from slm.data.faults import Faults
from slm.data.readers.source import Source, file_sources, read_documents
from slm.data.token_store import FORMAT, TokenStore, cached_store, write_store
from slm.errors import UserError
from slm.notices import notice
from slm.registry import CORPORA, TOKENIZERS
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.build import build_tokenizer


def find_store(corpus: CorpusConfig, tokenizer: Mapping[str, Any]) -> TokenStore:
    """The token store for these settings: the prepared one, the cached one, or a new one.

    Args:
        corpus: what to read.
        tokenizer: ``kind`` and that kind's settings; its vocabulary is fitted on the training part.

    Raises:
        UserError: files are missing, empty or not text, or the tokenizer's settings do not fit.
    """
    if corpus.kind == STORE_KIND:
        return _prepared_store(corpus)
    settings = {name: value for name, value in tokenizer.items() if name != "kind"}
    inputs = {
        "format": FORMAT,
        "slm": slm.__version__,
        "sources": [source.identity() for source in corpus_sources(corpus)],
        "reading": asdict(corpus.reading),
        "val_fraction": corpus.val_fraction,
        "tokenizer": dict(tokenizer),
        "tokenizer_files": _identities(TOKENIZERS.get(tokenizer["kind"]).source_files(**settings)),
    }
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(corpus.cache_dir).expanduser() / "token_stores" / f"{corpus.kind}-{tokenizer['kind']}-{key}"
    return cached_store(folder, lambda place: prepare_store(corpus, tokenizer, place))


def prepare_store(corpus: CorpusConfig, tokenizer: Mapping[str, Any], folder: Path) -> TokenStore:
    """Read the corpus, fit a tokenizer on its training part and write the store into `folder`."""
    split = _read(corpus)
    settings = {name: value for name, value in tokenizer.items() if name != "kind"}
    fitted = build_tokenizer(tokenizer["kind"], settings, (document.text for document in split.train))
    return write_store(folder, split, fitted)


def tokenize_with(corpus: CorpusConfig, tokenizer: Tokenizer) -> TokenStore:
    """The (cached) store of a corpus in the vocabulary of a tokenizer that exists, a run's own say."""
    if corpus.kind == STORE_KIND:
        store = _prepared_store(corpus)
        if store.tokenizer.fingerprint != tokenizer.fingerprint:
            raise UserError(
                f"the token store '{store.folder}' was made with another tokenizer than the model's; "
                "give the text itself (data=text data.path=…)"
            )
        return store
    split = _read(corpus)
    digest = hashlib.sha256(f"{tokenizer.fingerprint} {corpus.val_fraction}".encode())
    for document in (*split.train, *split.val):
        digest.update(f" {document.begins} {document.ends} {len(document.text)} {document.text}".encode())
    folder = Path(corpus.cache_dir).expanduser() / "token_stores" / f"{corpus.kind}-{digest.hexdigest()[:16]}"
    return cached_store(folder, lambda place: write_store(place, split, tokenizer))


def training_texts(corpus: CorpusConfig) -> Iterator[str]:
    """What a corpus gives to train on, read when it is asked for."""
    for document in _read(corpus).train:
        yield document.text


def corpus_sources(corpus: CorpusConfig) -> list[Source]:
    """What a corpus consists of, in order; a file that has several names (a link, another spelling) once, by the first.

    Raises:
        UserError: something is not there.
    """
    found = CORPORA.get(corpus.kind)(**corpus.settings)
    once: dict[Path, Path] = {}
    for file in found:
        if isinstance(file, Path):
            once.setdefault(file.resolve(), file)
    files = file_sources(list(once.values()), corpus.reading) if once else []
    return [*files, *(other.source(corpus.reading) for other in found if not isinstance(other, Path))]


def _read(corpus: CorpusConfig) -> Split:
    faults = Faults(corpus.reading.on_bad)
    documents = read_documents(corpus_sources(corpus), faults)
    for line in faults.lines():
        notice(f"data: {line}")
    return split_documents(documents, corpus.val_fraction)


def _prepared_store(corpus: CorpusConfig) -> TokenStore:
    path = corpus.settings["path"]
    if not path:
        raise UserError("data.path is empty; give the folder that slm-prepare made")
    return TokenStore.open(Path(os.path.expanduser(path)))


def _identities(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """What changes when a file's content does, without reading it: place, size, time of the last change."""
    return [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
