"""What to read and how to cut it, as `conf/data/*.yaml` says it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Gt, Lt
from pydantic import Strict

from slm.registry import CORPORA
from slm.schema import Count, NonNegativeInt, Text, checked

COMMON_KEYS = ("kind", "seq_len", "val_fraction", "num_workers", "cache_dir")
STORE_KIND = "prepared"


@dataclass(frozen=True)
class DataConfig:
    """One corpus, its split and its windows.

    Attributes:
        kind: a corpus of the registry, or "prepared" for a token store that `slm-prepare` made.
        seq_len: length of a training window, in tokens.
        val_fraction: share of the text that is held out for validation.
        num_workers: loader processes; 0 reads in the training process, which is rarely slower.
        cache_dir: where token stores and downloads are kept.
        settings: the keyword arguments of the corpus.
    """

    kind: Text
    seq_len: Count
    cache_dir: Text
    val_fraction: Annotated[float, Strict(), Gt(0), Lt(1)] = 0.1
    num_workers: NonNegativeInt = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind != STORE_KIND:
            CORPORA.check(self.kind)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "data") -> DataConfig:
        """Split the flat YAML node into common keys and the corpus's own; raises `UserError`."""
        common = {key: value for key, value in values.items() if key in COMMON_KEYS}
        settings = {key: value for key, value in values.items() if key not in COMMON_KEYS}
        return checked(cls, {**common, "settings": settings}, where)
