"""What to read, what of it to leave out and how to cut it, as `conf/data/*.yaml` says it. Imports no reader."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Annotated, Any

from annotated_types import Gt, Lt
from pydantic import Strict

from slm.data.faults import OnBad
from slm.errors import UserError, did_you_mean, refuse
from slm.registry import CORPORA, READERS
from slm.schema import FORBID_EXTRA, Count, NonNegativeInt, PositiveFloat, Text, call_problems, checked, together

STORE_KIND = "prepared"
PREFERENCES = "pairs"  # what task=dpo reads
MIXTURE_KIND = "mixture"
IDS_KIND = "tokens"  # ids that another tool wrote
CONVERSATIONS = "instructions"  # what task=sft reads
UNPAIRED = "unpaired"  # what task=kto reads
AUTO = "auto"
PART_NAMES = {"train": "training", "val": "validation", "test": "test"}
LONGEST_SEPARATOR = 200
_ENCODINGS = ("utf-8", "utf-16", "latin-1", "cp1252", "cp1251", "gb18030", "shift_jis", AUTO)


@dataclass(frozen=True)
class Reading:
    """How the files of a corpus are read."""

    format: Text = AUTO  # a reader of the registry, or by each file's ending
    field: Text = "text"  # of a record, the one that holds the text, or a dotted path to it
    encoding: Text = "utf-8"  # of text, JSON and CSV; one of Python's, or looked for in each file
    separator: Text = AUTO  # of the documents in a text; see `slm.data.documents.separator`
    delimiter: Text = AUTO  # of the values in a row of CSV; by the ending and the first row
    header: tuple[Text, ...] | None = None  # names of the columns of CSV whose first row does not say them
    html: bool = False  # whether the text of pages in WARC files is read
    on_bad: OnBad = "refuse"  # what becomes of what is no text; see `slm.data.faults`
    max_record_bytes: Count = 32 << 20  # a longer record is a fault, so that memory is bounded

    def __post_init__(self) -> None:
        known = [AUTO, *READERS.names()]
        if self.format not in known:
            raise ValueError(
                f"there is no format '{self.format}'{did_you_mean(self.format, known)} (known: {', '.join(known)})"
            )
        if problem := _separator_problem(self.separator) or _encoding_problem(self.encoding):
            raise ValueError(problem)
        if self.delimiter not in (AUTO, "tab") and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise ValueError(f"the delimiter must be one character, tab or auto; got {self.delimiter!r}")


def _separator_problem(separator: str) -> str:
    if not separator or len(separator) > LONGEST_SEPARATOR:
        return f"the separator must have 1 to {LONGEST_SEPARATOR} characters; got {len(separator)}"
    if is_expression(separator):
        try:
            re.compile(separator[1:-1].encode())
        except re.error as error:
            return f"the separator {separator} is no regular expression ({error})"
    elif "\n" in separator.strip("\r\n"):
        return f"the separator must be one line; got {separator!r}"
    return ""


def is_expression(separator: str) -> bool:
    """Between slashes stands a regular expression."""
    return len(separator) > 2 and separator[0] == separator[-1] == "/"


def _encoding_problem(encoding: str) -> str:
    try:
        "".encode("utf-8" if encoding == AUTO else encoding)
    except (LookupError, UnicodeError, ValueError):
        return f"there is no encoding '{encoding}'{did_you_mean(encoding, _ENCODINGS)}; e.g. {', '.join(_ENCODINGS)}"
    return ""


@dataclass(frozen=True)
class Filters:
    """What is dropped of the documents that were read; how many is told."""

    dedupe: bool = False  # of documents with the very same text, all but the first
    min_chars: NonNegativeInt = 0
    max_chars: Count | None = None  # None for no limit

    def __post_init__(self) -> None:
        if self.max_chars is not None and self.min_chars > self.max_chars:
            raise ValueError(f"min_chars ({self.min_chars}) must be at most max_chars ({self.max_chars})")


@dataclass(frozen=True)
class HeldOut:
    """How much of a text is not trained on, where no files of its own are: in bytes of UTF-8, from its end."""

    val_bytes: Count | None = None  # for validation; None: the share `val_fraction`
    test_bytes: Count | None = None  # for a test part, behind that of validation; None for no such part


_CORPUS_KEYS = ("kind", "val_fraction", "cache_dir")
_WINDOW_KEYS = ("seq_len", "num_workers")


@dataclass(frozen=True)
class CorpusConfig:
    """Which text, and how much of it is held out."""

    __pydantic_config__ = FORBID_EXTRA
    kind: Text  # a corpus of the registry, "mixture", or "prepared" for a token store that `slm-prepare` made
    cache_dir: Text  # where token stores and downloads are kept
    val_fraction: Annotated[float, Strict(), Gt(0), Lt(1)] = 0.1  # of the text, held out for validation
    settings: dict[str, Any] = field(default_factory=dict)  # arguments of the corpus; ``path`` of a prepared one
    reading: Reading = field(default_factory=Reading)
    parts: tuple[Part, ...] = ()
    filters: Filters = field(default_factory=Filters)
    held_out: HeldOut = field(default_factory=HeldOut)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "data") -> CorpusConfig:
        """From the flat YAML node, the corpus's own settings beside the common ones; `UserError` has all problems."""
        reads_text = values.get("kind") not in (STORE_KIND, MIXTURE_KIND, IDS_KIND)
        common, reading = _of(values, _CORPUS_KEYS), _of(values, _names(Reading))
        filters, held_out = (_of(values, _names(of)) if reads_text else {} for of in (Filters, HeldOut))
        settings = _of(values, values.keys() - {*common, *reading, *filters, *held_out, *_WINDOW_KEYS})
        config: CorpusConfig
        config, read, dropping, held, _ = together(
            lambda: checked(cls, {**common, "settings": settings}, where),
            lambda: checked(Reading, reading, where),
            lambda: checked(Filters, filters, where),
            lambda: checked(HeldOut, held_out, where),
            lambda: _check_settings(values.get("kind"), settings, where),
        )
        parts = _parts(settings["parts"], config.cache_dir, f"{where}.parts") if config.kind == MIXTURE_KIND else ()
        return replace(config, reading=read, filters=dropping, held_out=held, parts=parts)


@dataclass(frozen=True)
class Part:
    """A part of a mixture; `weight` is its share of the training samples, up to a common factor."""

    name: str
    corpus: CorpusConfig
    weight: PositiveFloat = 1.0


@dataclass(frozen=True)
class DataConfig:
    """A corpus and its windows."""

    corpus: CorpusConfig
    seq_len: Count  # length of a training window, in tokens
    num_workers: NonNegativeInt = 0  # loader processes; 0 reads in the training process, which is rarely slower

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "data") -> DataConfig:
        """From the flat YAML node; raises `UserError` with all problems."""
        windows = _of(values, _WINDOW_KEYS)
        corpus, _ = together(
            lambda: CorpusConfig.from_dict(values, where), lambda: refuse(call_problems(cls, windows, where, given=1))
        )
        return cls(corpus, **windows)


def _of(values: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in keys}


def _names(settings: type) -> list[str]:
    return [one.name for one in fields(settings)]


def _check_settings(kind: object, settings: Mapping[str, Any], where: str) -> None:
    if not isinstance(kind, str):
        return  # told with the common keys
    own: dict[str, Callable[..., Any]] = {STORE_KIND: _prepared, MIXTURE_KIND: _mixture}
    known = [*CORPORA.names(), *own]
    if kind not in known:
        raise UserError(f"{where}.kind: there is no '{kind}'{did_you_mean(kind, known)} (known: {', '.join(known)})")
    takes = own[kind] if kind in own else CORPORA.get(kind)
    refuse(call_problems(takes, settings, where))


def _prepared(path: str) -> None: ...  # their signatures say what such data takes


def _mixture(parts: dict[str, dict[str, Any]]) -> None: ...


def _parts(nodes: Mapping[str, Any], cache_dir: str, where: str) -> tuple[Part, ...]:
    if len(nodes) < 2:
        raise UserError(
            f"{where} names {len(nodes)} corpora, and a mixture takes two or more; "
            "e.g. +data@data.parts.code=python_stdlib +data@data.parts.notes=text data.parts.notes.path=notes"
        )
    parts = tuple(together(*(partial(_part, name, node, cache_dir, where) for name, node in nodes.items())))
    total = sum(part.weight for part in parts)
    for part in parts:
        if part.weight < total / 1000:
            raise UserError(
                f"{where}.{part.name}.weight ({part.weight}) must be at least a thousandth of all ({total})"
            )
    return parts


def _part(name: str, node: Mapping[str, Any], cache_dir: str, where: str) -> Part:
    place = f"{where}.{name}"
    if node.get("kind") == MIXTURE_KIND:
        raise UserError(f"{place}: a part cannot be a mixture itself; name its parts here")
    own = {"cache_dir": cache_dir, **{key: value for key, value in node.items() if key != "weight"}}
    weight = _of(node, ["weight"])
    _, corpus = together(
        lambda: refuse(call_problems(Part, weight, place, given=2)), lambda: CorpusConfig.from_dict(own, place)
    )
    return Part(name, corpus, **{key: float(value) for key, value in weight.items()})
