"""Files of records to a training and a validation part: conversations, or pairs of answers."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from slm.chat.records import Message, Pair, RecordError, conversation_of, pair_of
from slm.chat.renderer import ChatRenderer
from slm.data.batches.pairs import PairTokens, TooLong, fitted, tokenized
from slm.data.config import CorpusConfig, Reading
from slm.data.corpora import CONVERSATION_FILES, PAIR_FILES, text
from slm.data.documents.source import file_sources
from slm.data.faults import Faults
from slm.errors import UserError

Conversation = Sequence[Message]
T = TypeVar("T")


def read_conversations(
    corpus: CorpusConfig, faults: Faults, part: Literal["train", "val", "all"] | None = None
) -> dict[str, list[Conversation]]:
    """Conversations of a corpus ``instructions``, in the order of the files: of "train" and of "val", or of one `part`
    ("all": both in one); `faults` is told of what is none. Without ``val_path`` the share `val_fraction` is held out,
    by the conversations' hashes. `UserError` if files are missing, a part would be empty, or a fault is refused."""
    val_path = corpus.settings.get("val_path")
    if part == "val" and val_path:  # the other files are of no use to it
        return {part: _conversations(corpus, "val_path", faults)}
    train = _conversations(corpus, "path", faults)
    if val_path:
        val = _conversations(corpus, "val_path", faults)
    else:
        train, val = _split(train, list(map(_key, train)), corpus.val_fraction)
    for name, found in (("training", train), ("validation", val)):
        if not found:
            raise UserError(f"data: there is no conversation for {name}; give more records, or data.val_path")
    return {"train": train, "val": val} if part is None else {part: {"train": train, "val": val}.get(part, train + val)}


def read_pairs(
    corpus: CorpusConfig, faults: Faults, renderer: ChatRenderer, longest: int, policy: TooLong
) -> tuple[list[PairTokens], list[PairTokens]]:
    """The pairs of a corpus of the kind ``pairs``, of training and of validation, as tokens, at most `longest` a
    conversation; no prompt is in both. Without ``val_path`` the share `val_fraction` is held out, by the prompts'
    hashes. Raises `UserError` if a record is no pair, and these are refused, or if a part has no pair."""
    val_path = corpus.settings.get("val_path")
    train = list(_pairs(corpus.settings["path"], corpus.reading, faults))
    keys = [_key(pair.prompt) for _, pair in train]
    if val_path is None:
        train, val = _split(train, keys, corpus.val_fraction)
    else:
        val, known = list(_pairs(val_path, corpus.reading, faults)), set(keys)
        if shared := next((place for place, pair in val if _key(pair.prompt) in known), None):
            raise UserError(f"data.val_path: the prompt of {shared} is one of data.path too; take it out of either")
    splits = [list(_fitted(part, renderer, longest, policy, faults)) for part in (train, val)]
    for name, part in zip(("data.path", "data.val_path" if val_path else "data.val_fraction"), splits, strict=True):
        if not part:
            found = f" ({'; '.join(faults.lines())})" if faults.counts else ""
            raise UserError(f"{name}: no pair is left{found}; give more, or a longer data.seq_len")
    return splits[0], splits[1]


def _conversations(corpus: CorpusConfig, name: Literal["path", "val_path"], faults: Faults) -> list[Conversation]:
    made = partial(conversation_of, form=corpus.settings.get("form", "auto"))
    files = text(corpus.settings[name], CONVERSATION_FILES)
    return [found for _, found in _read(files, corpus.reading, made, "no_conversation", faults)]


def _pairs(path: str | list[str], reading: Reading, faults: Faults) -> Iterator[tuple[str, Pair]]:
    for place, pair in _read(text(path, PAIR_FILES), reading, pair_of, "no_pair", faults):
        if pair.chosen == pair.rejected:
            faults.note("same_answers", place)
        else:
            yield place, pair


def _read(
    files: Sequence[Path], reading: Reading, made: Callable[[Mapping[str, Any]], T], fault: str, faults: Faults
) -> Iterator[tuple[str, T]]:
    """What is made of each record, with its place; a record of which nothing can be made is such a `fault`."""
    for source in file_sources(files, reading):
        for record in (record for span in source.spans() for record in source.records(span, faults)):
            place = f"{source.name}{record.place}"
            try:
                found = made(record.values)
            except RecordError as error:
                faults.add(fault, place, f"{source.where(record.place)} {error}")
            else:
                yield place, found


def _key(messages: Sequence[Message]) -> bytes:
    return hashlib.sha256(json.dumps(messages, sort_keys=True, default=dict).encode()).digest()


def _split(found: Sequence[T], keys: Sequence[bytes], fraction: float) -> tuple[list[T], list[T]]:
    """Hold out about `fraction`, the smallest keys: equal ones stay together, and a record more moves few others."""
    wanted = max(1, round(fraction * len(keys)))
    border = sorted(keys)[min(wanted, len(keys)) - 1] if keys else b""
    parts: tuple[list[T], list[T]] = ([], [])
    for item, key in zip(found, keys, strict=True):
        parts[key <= border].append(item)
    return parts


def _fitted(
    pairs: Sequence[tuple[str, Pair]], renderer: ChatRenderer, longest: int, policy: TooLong, faults: Faults
) -> Iterator[PairTokens]:
    for place, pair in pairs:
        tokens = tokenized(pair, renderer)
        found = fitted(tokens, longest, policy)
        if found is not tokens:
            faults.note("long_pair" if found is None else "cut_prompt", place)
        if found is not None:
            yield found
