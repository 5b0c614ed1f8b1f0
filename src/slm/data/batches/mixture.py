"""Several corpora trained on side by side, each with its weight and a token store of its own."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

import slm
from slm.data.batches.order import BLOCK, slots
from slm.data.config import MIXTURE_KIND, STORE_KIND, CorpusConfig, HeldOut
from slm.data.store.find import (
    check_usable,
    corpus_sources,
    find_store,
    inputs_key,
    prepare_store,
    tokenize_with,
    training_texts,
)
from slm.data.store.preparation import partial_store
from slm.data.store.processes import NumProcesses
from slm.data.store.token_store import SPLITS, WHOLE, TokenStore
from slm.errors import UserError
from slm.files.reading import read_json_object
from slm.files.writing import new_file, new_folder
from slm.schema import PositiveFloat, Text, checked_file
from slm.tokenizers.base import TOKENIZER_FILE, Tokenizer
from slm.tokenizers.build import build_tokenizer
from slm.tokenizers.load import load_tokenizer

MIXTURE_FILE = "mixture.json"
"""In a folder that `prepare_mixture` made: the names and weights of the stores ``part_0``, ``part_1``, …"""


@dataclass(frozen=True)
class _PreparedPart:
    name: Text
    weight: PositiveFloat


@dataclass(frozen=True)
class _Prepared:
    parts: list[_PreparedPart]


@dataclass(frozen=True)
class MixtureStore:
    """The parts' token stores, in one vocabulary."""

    stores: dict[str, TokenStore]  # two or more
    weights: dict[str, float]  # shares of the training samples, up to a common factor

    @classmethod
    def open(cls, folder: Path) -> "MixtureStore":
        """What `prepare_mixture` made; `UserError` if it is damaged."""
        file = folder / MIXTURE_FILE
        mend = "prepare the mixture again"
        parts = checked_file(_Prepared, read_json_object(file, mend), file, mend).parts
        if not 2 <= len(parts) == len({part.name for part in parts}):
            raise UserError(f"{file} is damaged (it does not name two or more stores); {mend}")
        stores = {part.name: TokenStore.open(folder / f"part_{i}") for i, part in enumerate(parts)}
        return cls(stores, {part.name: part.weight for part in parts})

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
            if all(split in meta for meta in metas)
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
    if (mixed := _prepared_mixture(corpus)) is not None:
        return mixed
    if corpus.kind != MIXTURE_KIND:
        return find_store(corpus, tokenizer)
    prepared = [part.corpus for part in corpus.parts if part.corpus.kind == STORE_KIND]
    if prepared:
        return find_data_with(corpus, find_store(prepared[0], tokenizer).tokenizer)
    saved = {"kind": "saved", "path": str(_fitted(corpus, tokenizer))}
    return _mixed(corpus, {part.name: find_store(part.corpus, saved) for part in corpus.parts})


def find_data_with(corpus: CorpusConfig, tokenizer: Tokenizer, part: str | None = None) -> Store:
    """As `tokenize_with`, of a mixture too."""
    if (mixed := _prepared_mixture(corpus)) is not None:
        for store in mixed.stores.values():
            check_usable(store, tokenizer, part)
        return mixed
    if corpus.kind != MIXTURE_KIND:
        return tokenize_with(corpus, tokenizer, part)
    return _mixed(corpus, {of.name: tokenize_with(of.corpus, tokenizer, part) for of in corpus.parts})


def prepare_mixture(
    corpus: CorpusConfig, tokenizer: Mapping[str, Any], folder: Path, num_processes: NumProcesses = "auto"
) -> MixtureStore:
    """Make the folder of a mixture: a store of each part, in the vocabulary that `find_data` would give them, and their
    weights. After a kill the next call alike goes on."""
    prepared = [part.corpus for part in corpus.parts if part.corpus.kind == STORE_KIND]
    of_all = find_store(prepared[0], tokenizer).folder if prepared else _fitted(corpus, tokenizer)
    saved = {"kind": "saved", "path": str(of_all)}
    known = load_tokenizer(of_all)
    keys = [_part_key(part.corpus, saved) for part in corpus.parts]
    weights = [{"name": part.name, "weight": part.weight} for part in corpus.parts]
    key = hashlib.sha256(json.dumps([weights, keys]).encode()).hexdigest()[:16]
    with partial_store(folder, key) as (whole, work):
        for number, part in enumerate(corpus.parts):
            place = whole / f"part_{number}"
            if place.is_dir():
                continue
            if part.corpus.kind == STORE_KIND:
                shutil.rmtree(work / place.name, ignore_errors=True)
                shutil.copytree(tokenize_with(part.corpus, known).folder, work / place.name)
                os.replace(work / place.name, place)
            else:
                prepare_store(part.corpus, saved, place, num_processes)
        known.save(whole)
        with new_file(whole / MIXTURE_FILE) as file:
            file.write(json.dumps({"parts": weights}, indent=1).encode())
    return MixtureStore.open(folder)


def _part_key(corpus: CorpusConfig, tokenizer: Mapping[str, Any]) -> str:
    if corpus.kind == STORE_KIND:
        return find_store(corpus, tokenizer).fingerprint
    return inputs_key(corpus, corpus_sources(corpus), tokenizer)


def _prepared_mixture(corpus: CorpusConfig) -> MixtureStore | None:
    if corpus.kind != STORE_KIND or not corpus.settings["path"]:
        return None
    folder = Path(os.path.expanduser(corpus.settings["path"]))
    return MixtureStore.open(folder) if (folder / MIXTURE_FILE).is_file() else None


def _mixed(corpus: CorpusConfig, stores: dict[str, TokenStore]) -> MixtureStore:
    return MixtureStore(stores, {part.name: part.weight for part in corpus.parts})


def _fitted(corpus: CorpusConfig, tokenizer: Mapping[str, Any]) -> Path:
    """The folder of the tokenizer for these parts and settings, made if it is not there."""
    corpora = [part.corpus for part in corpus.parts]
    inputs = {
        "slm": slm.__version__,
        "tokenizer": dict(tokenizer),
        "parts": [_inputs(of_part) for of_part in corpora],
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


def _inputs(corpus: CorpusConfig) -> list[Any]:
    sources, settings = corpus_sources(corpus), asdict(corpus)
    if corpus.held_out == HeldOut():
        del settings["held_out"]
    held = [[part, [source.identity() for source in of_part]] for part, of_part in sources.held.items()]
    return [settings, [source.identity() for source in sources], *held]
