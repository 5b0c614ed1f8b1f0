"""Files to pairs of answers: read, checked, split, tokenized, fitted into a window; what is left out is counted."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from slm.chat.pair_records import NoPairError, Pair, pair_of
from slm.chat.renderer import ChatRenderer
from slm.data.batches.pair_tokens import PairTokens, TooLong, fitted, tokenized
from slm.data.config import CorpusConfig, Reading
from slm.data.corpora.records import pairs as pair_files
from slm.data.documents.source import file_sources
from slm.data.faults import Faults
from slm.errors import UserError


@dataclass(frozen=True)
class PairSplits:
    """Pairs of training and of validation; no prompt is in both.

    Attributes:
        faults: what was left out.
    """

    train: list[PairTokens]
    val: list[PairTokens]
    faults: Faults


def read_pairs(corpus: CorpusConfig, renderer: ChatRenderer, longest: int, policy: TooLong) -> PairSplits:
    """All pairs of a corpus of the kind ``pairs``, as tokens.

    Args:
        corpus: where they are.
        renderer: writes conversations.
        longest: tokens a conversation may have.
        policy: what becomes of longer ones.

    Raises:
        UserError: a record is no pair, and these are refused; or a split has no pair.
    """
    faults = Faults(corpus.reading.on_bad)
    path, val_path = corpus.settings["path"], corpus.settings.get("val_path")
    train = list(_pairs(path, corpus.reading, faults))
    if val_path is None:
        train, val = _split(train, corpus.val_fraction)
    else:
        known = {_prompt_key(pair) for _, pair in train}
        val = list(_pairs(val_path, corpus.reading, faults))
        if shared := next((place for place, pair in val if _prompt_key(pair) in known), None):
            raise UserError(f"data.val_path: the prompt of {shared} is one of data.path too; take it out of either")
    splits = [list(_fitted(part, renderer, longest, policy, faults)) for part in (train, val)]
    for name, part in zip(("data.path", "data.val_path" if val_path else "data.val_fraction"), splits, strict=True):
        if not part:
            found = f" ({'; '.join(faults.lines())})" if faults.counts else ""
            raise UserError(f"{name}: no pair is left{found}; give more, or a longer data.seq_len")
    return PairSplits(splits[0], splits[1], faults)


def _pairs(path: str | list[str], reading: Reading, faults: Faults) -> Iterator[tuple[str, Pair]]:
    """The pairs in files, with the place of each."""
    for source in file_sources(pair_files(path), reading):
        for record in (record for span in source.spans() for record in source.records(span, faults)):
            place = f"{source.name}{record.place}"
            try:
                pair = pair_of(record.values)
            except NoPairError as error:
                faults.add("no_pair", place, f"record {record.place} of '{source.place}' {error}".__str__)
                continue
            if pair.chosen == pair.rejected:
                faults.note("same_answers", place)
            else:
                yield place, pair


def _split(pairs: Sequence[tuple[str, Pair]], fraction: float) -> tuple[list[Any], list[Any]]:
    """Hold out about `fraction` of the pairs: all those of some prompts, chosen by the prompt's hash."""
    keys = [_prompt_key(pair) for _, pair in pairs]
    held_out: set[bytes] = set()
    counted, wanted = 0, max(1, round(fraction * len(pairs)))
    for key, count in sorted(Counter(keys).items()):
        if counted >= wanted:
            break
        held_out.add(key)
        counted += count
    parts: tuple[list[Any], list[Any]] = ([], [])
    for key, pair in zip(keys, pairs, strict=True):
        parts[key in held_out].append(pair)
    return parts


def _prompt_key(pair: Pair) -> bytes:
    return hashlib.sha256(json.dumps([dict(message) for message in pair.prompt], sort_keys=True).encode()).digest()


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
