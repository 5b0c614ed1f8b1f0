"""A record of any data set's form to messages: a conversation, or two answers to one prompt."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from slm.files.reading import is_unicode

Form = Literal["auto", "alpaca", "pair", "messages"]
Message = Mapping[str, Any]
"""``role`` (``system``, ``user``, ``assistant``, …) and ``content``, both texts, and what else a template reads."""
_FORM_OF_FIELD: dict[str, Form] = {"messages": "messages", "instruction": "alpaca", "prompt": "pair"}


class RecordError(ValueError):
    """A record that is not what is read; its text says why."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, the better and the worse."""

    prompt: tuple[Message, ...]  # the conversation up to the answers; its last message is not the assistant's
    chosen: str
    rejected: str


def is_message(value: Any) -> bool:
    """It has a role and a content, and both are texts."""
    return isinstance(value, Mapping) and all(isinstance(value.get(name), str) for name in ("role", "content"))


def conversation_of(values: Mapping[str, Any], form: Form = "auto") -> list[Message]:
    """The messages of a record with these fields. Forms: ``alpaca``: ``instruction``, ``output`` and perhaps ``input``;
    ``pair``: ``prompt`` and ``response`` (or ``completion``), each with an optional ``system``; ``messages``: a list of
    messages with ``role`` and ``content``; ``auto``: the one whose fields are there. `RecordError` if they are missing,
    are no texts, hold no response, or half a character."""
    if form == "auto":
        found = next((name for name in _FORM_OF_FIELD if name in values), None)
        if found is None:
            raise RecordError(f"has none of the fields {', '.join(_FORM_OF_FIELD)} {_fields(values)}")
        form = _FORM_OF_FIELD[found]
    messages = _conversation(values.get("messages")) if form == "messages" else _question_and_answer(values, form)
    _check_characters(messages)
    return messages


def pair_of(values: Mapping[str, Any]) -> Pair:
    """The pair that a record holds. ``prompt`` is a text or a list of messages, ``chosen`` and ``rejected`` are each a
    text or a list of messages. Without ``prompt`` these lists are whole conversations, that differ in the last message
    alone. `RecordError` if fields are missing, of another form, without text, or hold half a character."""
    prompt = _prompt(values["prompt"]) if values.get("prompt") is not None else ()
    (before, chosen), (other, rejected) = _answer(values, "chosen"), _answer(values, "rejected")
    if prompt and (before or other):
        raise RecordError("has more than one message in 'chosen' or 'rejected' beside a 'prompt'")
    if not prompt and not before:
        raise RecordError("has no field 'prompt', and 'chosen' is no whole conversation")
    if before != other:
        raise RecordError("has no field 'prompt', and 'chosen' and 'rejected' differ before their last message")
    pair = Pair(prompt or before, chosen, rejected)
    if pair.prompt[-1]["role"] == "assistant":
        raise RecordError("has a prompt that ends with the assistant's words")
    _check_characters([*pair.prompt, {"chosen": chosen, "rejected": rejected}])
    return pair


def _conversation(found: Any) -> list[Message]:
    if not isinstance(found, list) or not found:
        raise RecordError("has no list of messages in the field 'messages'")
    if not all(map(is_message, found)):
        raise RecordError("has a message without a role and a content that are texts")
    if not any(message["role"] == "assistant" for message in found):
        raise RecordError("has no message of role assistant to learn from")
    return found


def _question_and_answer(values: Mapping[str, Any], form: Form) -> list[Message]:
    asked, answer = ("instruction", "output") if form == "alpaca" else ("prompt", "response")
    if answer == "response" and answer not in values and "completion" in values:
        answer = "completion"
    question = {"role": "user", "content": _text(values, asked)}
    if form == "alpaca" and values.get("input"):  # apart, too, for templates that give each its heading
        question |= {"instruction": question["content"], "input": _text(values, "input")}
        question["content"] += f"\n\n{question['input']}"
    system = [{"role": "system", "content": _text(values, "system")}] if values.get("system") else []
    return [*system, question, {"role": "assistant", "content": _text(values, answer)}]


def _prompt(value: Any) -> tuple[Message, ...]:
    if value == "":
        raise RecordError("has an empty prompt")
    return ({"role": "user", "content": value},) if isinstance(value, str) else _messages(value, "prompt")


def _answer(values: Mapping[str, Any], name: str) -> tuple[tuple[Message, ...], str]:
    """Messages ahead of an answer, and its text."""
    before: tuple[Message, ...] = ()
    answer = _field(values, name)
    if not isinstance(answer, str):
        *before, last = _messages(answer, name)  # type: ignore[assignment]
        if last["role"] != "assistant":
            raise RecordError(f"has a last message in '{name}' that is not the assistant's")
        answer = last["content"]
    if not answer:
        raise RecordError(f"has an empty answer in '{name}'")
    return tuple(before), answer


def _messages(value: Any, name: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value or not all(map(is_message, value)):
        raise RecordError(f"has in '{name}' neither a text nor a list of messages with role and content")
    return tuple(value)


def _text(values: Mapping[str, Any], name: str) -> str:
    text = _field(values, name)
    if not isinstance(text, str):
        raise RecordError(f"has {type(text).__name__} in the field '{name}', not text")
    if not text:
        raise RecordError(f"has nothing in the field '{name}'")
    return text


def _field(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise RecordError(f"has no field '{name}' {_fields(values)}")
    return values[name]


def _fields(values: Mapping[str, Any]) -> str:
    return f"(fields: {', '.join(map(repr, list(values)[:8])) or 'none'})"


def _check_characters(messages: Iterable[Message]) -> None:
    if not all(is_unicode(text) for message in messages for text in message.values() if isinstance(text, str)):
        raise RecordError("holds half a surrogate pair, which is no character")
