"""A record to a pair of answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slm.files.reading import is_unicode

Message = Mapping[str, Any]


class NoPairError(ValueError):
    """A record that is no pair; its text says why."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt.

    Attributes:
        prompt: the conversation up to the answers; its last message is not the assistant's.
        chosen, rejected: the better and the worse answer.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str


def pair_of(values: Mapping[str, Any]) -> Pair:
    """The pair that a record holds.

    ``prompt`` is a text or a list of messages, ``chosen`` and ``rejected`` are each a text or a list of messages.
    Without ``prompt`` these lists are whole conversations, that differ in the last message alone.

    Raises:
        NoPairError: fields are missing, of another form, without text, or hold half a character.
    """
    if missing := [name for name in ("chosen", "rejected") if name not in values]:
        raise NoPairError(f"has no field '{missing[0]}' (fields: {', '.join(map(repr, list(values)[:8])) or 'none'})")
    begun = _prompt(values["prompt"]) if values.get("prompt") is not None else None
    before_chosen, chosen = _answer(values, "chosen")
    before_rejected, rejected = _answer(values, "rejected")
    if begun is None:
        if not before_chosen:
            raise NoPairError("has no field 'prompt', and 'chosen' is no whole conversation")
        begun, before_chosen, before_rejected = before_chosen, (), before_rejected[len(before_chosen) :]
        if values["rejected"][: len(begun)] != list(begun):
            raise NoPairError("has no field 'prompt', and 'chosen' and 'rejected' differ before their last message")
    if before_chosen or before_rejected:
        raise NoPairError("has more than one message in 'chosen' or 'rejected' beside a 'prompt'")
    if begun[-1]["role"] == "assistant":
        raise NoPairError("has a prompt that ends with the assistant's words")
    texts = [chosen, rejected, *(text for message in begun for text in message.values() if isinstance(text, str))]
    if not all(map(is_unicode, texts)):
        raise NoPairError("holds half a surrogate pair, which is no character")
    return Pair(begun, chosen, rejected)


def _prompt(value: Any) -> tuple[Message, ...]:
    if isinstance(value, str):
        if not value:
            raise NoPairError("has an empty prompt")
        return ({"role": "user", "content": value},)
    return _messages(value, "prompt")


def _answer(values: Mapping[str, Any], name: str) -> tuple[tuple[Message, ...], str]:
    """Messages ahead of an answer, and its text."""
    value = values[name]
    before: tuple[Message, ...] = ()
    if not isinstance(value, str):
        *ahead, last = _messages(value, name)
        if last["role"] != "assistant":
            raise NoPairError(f"has a last message in '{name}' that is not the assistant's")
        before, value = tuple(ahead), last["content"]
    if not value:
        raise NoPairError(f"has an empty answer in '{name}'")
    return before, value


def _messages(value: Any, name: str) -> tuple[Message, ...]:
    good = isinstance(value, list) and all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
    )
    if not good or not value:
        raise NoPairError(f"has in '{name}' neither a text nor a list of messages with role and content")
    return tuple(value)
