"""What to read and how to cut it, as `conf/data/*.yaml` says it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from annotated_types import Gt, Lt
from pydantic import Strict

from slm.data.readers.reading import READING_KEYS, Reading
from slm.errors import UserError, did_you_mean
from slm.registry import CORPORA
from slm.schema import FORBID_EXTRA, Count, NonNegativeInt, Text, call_problems, checked, together

STORE_KIND = "prepared"
_CORPUS_KEYS = ("kind", "val_fraction", "cache_dir")
_WINDOW_KEYS = ("seq_len", "num_workers")


@dataclass(frozen=True)
class CorpusConfig:
    """Which text, and how much of it is held out.

    Attributes:
        kind: a corpus of the registry, or "prepared" for a token store that `slm-prepare` made.
        cache_dir: where token stores and downloads are kept.
        val_fraction: share of the text that is held out for validation.
        settings: the keyword arguments of the corpus; ``path`` of a prepared one.
        reading: how its files are read.
    """

    __pydantic_config__ = FORBID_EXTRA
    kind: Text
    cache_dir: Text
    val_fraction: Annotated[float, Strict(), Gt(0), Lt(1)] = 0.1
    settings: dict[str, Any] = field(default_factory=dict)
    reading: Reading = field(default_factory=Reading)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "data") -> CorpusConfig:
        """From the flat YAML node, where the corpus's own settings stand beside the common ones.

        Raises:
            UserError: one line a problem, all of them at once.
        """
        common = {key: value for key, value in values.items() if key in _CORPUS_KEYS}
        reading = {key: value for key, value in values.items() if key in READING_KEYS}
        own = values.keys() - {*common, *reading, *_WINDOW_KEYS}
        settings = {key: value for key, value in values.items() if key in own}
        config: CorpusConfig
        config, read, _ = together(
            lambda: checked(cls, {**common, "settings": settings}, where),
            lambda: checked(Reading, reading, where),
            lambda: _check_settings(values.get("kind"), settings, where),
        )
        return replace(config, reading=read)


@dataclass(frozen=True)
class _Windows:
    seq_len: Count
    num_workers: NonNegativeInt = 0


@dataclass(frozen=True)
class DataConfig:
    """A corpus and its windows.

    Attributes:
        seq_len: length of a training window, in tokens.
        num_workers: loader processes; 0 reads in the training process, which is rarely slower.
    """

    corpus: CorpusConfig
    seq_len: int
    num_workers: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "data") -> DataConfig:
        """From the flat YAML node; raises `UserError` with all problems."""
        keys = {key: value for key, value in values.items() if key in _WINDOW_KEYS}
        corpus, windows = together(
            lambda: CorpusConfig.from_dict(values, where), lambda: checked(_Windows, keys, where)
        )
        return cls(corpus, windows.seq_len, windows.num_workers)


def _check_settings(kind: object, settings: Mapping[str, Any], where: str) -> None:
    """Raise `UserError` for settings that the corpus `kind` does not take, or an unknown `kind`."""
    if not isinstance(kind, str):
        return  # reported with the common keys
    known = [*CORPORA.names(), STORE_KIND]
    if kind not in known:
        raise UserError(f"{where}.kind: there is no '{kind}'{did_you_mean(kind, known)} (known: {', '.join(known)})")
    takes = _prepared if kind == STORE_KIND else CORPORA.get(kind)
    if problems := call_problems(takes, settings, where):
        raise UserError("\n".join(problems))


def _prepared(path: str) -> None:
    """The settings of a prepared token store: its folder."""
