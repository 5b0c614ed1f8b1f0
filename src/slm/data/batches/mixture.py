"""Several corpora trained on side by side, each with its weight and a token store of its own."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

import slm
from slm.data.batches.order import BLOCK, slots
from slm.data.config import MIXTURE_KIND, STORE_KIND, CorpusConfig
from slm.data.store.find import corpus_sources, find_store, tokenize_with, training_texts
from slm.data.store.token_store import SPLITS, WHOLE, TokenStore
from slm.files.writing import new_folder
from slm.tokenizers.base import TOKENIZER_FILE, Tokenizer
from slm.tokenizers.build import build_tokenizer


@dataclass(frozen=True)
class MixtureStore:
    """The parts' token stores, in one vocabulary."""

    stores: dict[str, TokenStore]  # two or more
    weights: dict[str, float]  # shares of the training samples, up to a common factor

    @property
    def shares(self) -> dict[str, float]:
        """Of the training samples; together 1."""
        given = slots(list(self.weights.values()))
        return {name: int(n) / BLOCK for name, n in zip(self.weights, given, strict=True)}

    @property
    def tokenizer(self) -> Tokenizer:
        return next(iter(self.stores.values())).tokenizer

    @property
    def meta(self) -> dict[str, Any]:
        metas = [store.meta for store in self.stores.values()]
        sums = {
            split: {count: sum(meta[split][count] for meta in metas) for count in ("tokens", "bytes", "documents")}
            for split in (*SPLITS, WHOLE)
        }
        return {**sums, "vocab_size": metas[0]["vocab_size"]}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the parts, their names, order and shares."""
        parts = [[name, self.shares[name], store.fingerprint] for name, store in self.stores.items()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


Store = TokenStore | MixtureStore


def find_data(corpus: CorpusConfig, tokenizer: Mapping[str, Any]) -> Store:
    """As `find_store`; the tokenizer of a mixture is fitted on the training text of all its parts, each as long as
    it is (weights are of no account there), or is that of the parts that are prepared already; these must share it."""
    if corpus.kind != MIXTURE_KIND:
        return find_store(corpus, tokenizer)
    prepared = [part.corpus for part in corpus.parts if part.corpus.kind == STORE_KIND]
    if prepared:
        return find_data_with(corpus, find_store(prepared[0], tokenizer).tokenizer)
    saved = {"kind": "saved", "path": str(_fitted(corpus, tokenizer))}
    return _mixed(corpus, {part.name: find_store(part.corpus, saved) for part in corpus.parts})


def find_data_with(corpus: CorpusConfig, tokenizer: Tokenizer) -> Store:
    """As `tokenize_with`, of a mixture too."""
    if corpus.kind != MIXTURE_KIND:
        return tokenize_with(corpus, tokenizer)
    return _mixed(corpus, {part.name: tokenize_with(part.corpus, tokenizer) for part in corpus.parts})


def _mixed(corpus: CorpusConfig, stores: dict[str, TokenStore]) -> MixtureStore:
    return MixtureStore(stores, {part.name: part.weight for part in corpus.parts})


def _fitted(corpus: CorpusConfig, tokenizer: Mapping[str, Any]) -> Path:
    """The folder of the tokenizer for these parts and settings, made if it is not there."""
    corpora = [part.corpus for part in corpus.parts]
    inputs = {
        "slm": slm.__version__,
        "tokenizer": dict(tokenizer),
        "parts": [[asdict(c), [source.identity() for source in corpus_sources(c)]] for c in corpora],
    }
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(corpus.cache_dir).expanduser() / "tokenizers" / f"{tokenizer['kind']}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / TOKENIZER_FILE).is_file():
            texts = (text for part in corpora for text in training_texts(part))
            fitted = build_tokenizer(tokenizer, texts)
            with new_folder(folder) as partial:
                fitted.save(partial)
    return folder
