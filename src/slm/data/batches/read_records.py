"""Files of records to a training and a validation part: conversations, pairs of answers, or answers with a label."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Literal, TypeVar

from slm.chat.conversation_forms import conversation_of
from slm.chat.message_trees import MessageRows
from slm.chat.preference_forms import LabelledAnswer, Pair, labelled_of, pair_of
from slm.chat.records import Conversation, Message
from slm.chat.renderer import ChatRenderer
from slm.data.batches.pairs import PairTokens, TooLong, fitted, tokenized
from slm.data.batches.recognised import recognised
from slm.data.batches.record_parts import record_parts
from slm.data.batches.unpaired import AnswerTokens, answer_tokens, mismatched
from slm.data.config import CorpusConfig
from slm.data.documents.source import Source
from slm.data.faults import Faults
from slm.errors import UserError

T = TypeVar("T")
Preference = TypeVar("Preference", Pair, LabelledAnswer)


def read_conversations(
    corpus: CorpusConfig, faults: Faults, part: Literal["train", "val", "all"] | None = None
) -> dict[str, list[Conversation]]:
    """Conversations of a corpus ``instructions``, in the order of the files: of "train" and of "val", or of one `part`
    ("all": both in one); `faults` is told of what is none. Without files for validation the share `val_fraction` is
    held out, by the conversations' hashes. `UserError` if files are missing, a part would be empty, or a fault is
    refused."""
    sources = record_parts(corpus)
    form = corpus.settings.get("form", "auto")

    def read(sources: Sequence[Source]) -> list[tuple[str, Conversation]]:
        rows = MessageRows[tuple[Source, str]]() if form in ("auto", "tree") else None
        return _read(corpus, partial(conversation_of, form=form), "no_conversation", faults, sources, rows)

    if part == "val" and sources.val:  # the other files are of no use to it
        return {part: [found for _, found in read(sources.val)]}
    train = [found for _, found in read(sources.train)]
    if sources.val:
        val = [found for _, found in read(sources.val)]
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
    conversation; no prompt is in both. Without files for validation the share `val_fraction` is held out, by the
    prompts' hashes. Raises `UserError` if a record is no pair, and these are refused, or if a part has no pair."""

    def read(sources: Sequence[Source]) -> Iterator[tuple[str, Pair]]:
        for place, pair in _read(corpus, pair_of, "no_pair", faults, sources):
            if pair.chosen == pair.rejected:
                faults.note("same_answers", place)
            else:
                yield place, pair

    def tokens(found: Sequence[tuple[str, Pair]]) -> Iterator[PairTokens]:
        for place, pair in found:
            whole = tokenized(pair, renderer)
            kept = fitted(whole, longest, policy)
            if kept is not whole:
                faults.note("long_pair" if kept is None else "cut_prompt", place)
            if kept is not None:
                yield kept

    train, val = (list(tokens(part)) for part in _parts_by_prompt(corpus, read))
    _check_left(corpus, faults, "pair", train, val)
    return train, val


def read_unpaired(
    corpus: CorpusConfig, faults: Faults, renderer: ChatRenderer, longest: int, policy: TooLong
) -> tuple[list[AnswerTokens], list[AnswerTokens]]:
    """The answers of a corpus of the kind ``unpaired``, each with one to another prompt of its part beside it; else as
    `read_pairs`. `UserError` also if a part has a single prompt."""

    def read(sources: Sequence[Source]) -> Iterator[tuple[str, LabelledAnswer]]:
        for place, answers in _read(corpus, labelled_of, "no_label", faults, sources):
            yield from ((place, answer) for answer in answers)

    def tokens(found: Sequence[tuple[str, LabelledAnswer]]) -> list[AnswerTokens]:
        others = mismatched([_key(answer.prompt) for _, answer in found])
        made = []
        for (place, answer), other in zip(found, others, strict=True):
            both = answer_tokens(answer, found[other][1].answer, renderer, longest, policy)
            if both is None or both.is_cut:
                faults.note("long_answer" if both is None else "cut_prompt", place)
            if both is not None:
                made.append(both)
        return made

    train, val = (tokens(part) for part in _parts_by_prompt(corpus, read))
    _check_left(corpus, faults, "answer", train, val)
    return train, val


def _read(
    corpus: CorpusConfig,
    made: Callable[..., tuple[T, str]],
    fault: str,
    faults: Faults,
    sources: Sequence[Source],
    rows: MessageRows[tuple[Source, str]] | None = None,
) -> list[tuple[str, T]]:
    made, columns = partial(made, roles=corpus.settings.get("roles")), corpus.settings.get("columns")
    return recognised(sources, made, columns, fault, faults, rows)


def _parts_by_prompt(
    corpus: CorpusConfig, read: Callable[[Sequence[Source]], Iterable[tuple[str, Preference]]]
) -> tuple[list[tuple[str, Preference]], list[tuple[str, Preference]]]:
    """What is read, of training and of validation, no prompt in both."""
    sources = record_parts(corpus)
    train = list(read(sources.train))
    keys = [_key(one.prompt) for _, one in train]
    if not sources.val:
        return _split(train, keys, corpus.val_fraction)
    val, known = list(read(sources.val)), set(keys)
    if shared := next((place for place, one in val if _key(one.prompt) in known), None):
        raise UserError(f"data.val_path: the prompt of {shared} is one of data.path too; take it out of either")
    return train, val


def _check_left(corpus: CorpusConfig, faults: Faults, noun: str, train: Sequence[T], val: Sequence[T]) -> None:
    held_out = "data.val_path" if corpus.settings.get("val_path") else "data.val_fraction"
    for name, part in (("data.path", train), (held_out, val)):
        if not part:
            found = f" ({'; '.join(faults.lines())})" if faults.counts else ""
            raise UserError(f"{name}: no {noun} is left{found}; give more, or a longer data.seq_len")


def _key(messages: Sequence[Message]) -> bytes:
    return hashlib.sha256(json.dumps(messages, sort_keys=True, default=str).encode()).digest()


def _split(found: Sequence[T], keys: Sequence[bytes], fraction: float) -> tuple[list[T], list[T]]:
    """Hold out about `fraction`, the smallest keys: equal ones stay together, and a record more moves few others."""
    wanted = max(1, round(fraction * len(keys)))
    border = sorted(keys)[min(wanted, len(keys)) - 1] if keys else b""
    parts: tuple[list[T], list[T]] = ([], [])
    for item, key in zip(found, keys, strict=True):
        parts[key <= border].append(item)
    return parts
