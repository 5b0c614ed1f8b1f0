"""A record to a conversation: Alpaca's form, a prompt and its response, or messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from slm.chat.renderer import Message
from slm.files.reading import is_unicode

Form = Literal["auto", "alpaca", "pair", "messages"]

_RESPONSE_NAMES = ("response", "completion")


class NotAConversationError(ValueError):
    """A record that is none; its text says why."""


def conversation_of(values: Mapping[str, Any], form: Form = "auto") -> list[Message]:
    """The messages of a record.

    Forms: ``alpaca``: ``instruction``, ``output`` and perhaps ``input``; ``pair``: ``prompt`` and ``response`` (or
    ``completion``), each with an optional ``system``; ``messages``: a list of messages with ``role`` and ``content``.

    Args:
        values: the record's fields.
        form: one of them, or ``auto`` for the one whose fields are there.

    Raises:
        NotAConversationError: fields are missing, are no texts, hold no response, or half a character.
    """
    messages = _messages_of(values, _form_of(values) if form == "auto" else form)
    if not all(is_unicode(text) for message in messages for text in message.values() if isinstance(text, str)):
        raise NotAConversationError("holds half a surrogate pair, which is no character")
    return messages


def _messages_of(values: Mapping[str, Any], form: Form) -> list[Message]:
    if form == "messages":
        return _messages(values.get("messages"))
    if form == "alpaca":
        asked, answer = _alpaca(values), _text(values, "output")
    else:
        name = next((name for name in _RESPONSE_NAMES if name in values), _RESPONSE_NAMES[0])
        asked, answer = {"role": "user", "content": _text(values, "prompt")}, _text(values, name)
    system = [{"role": "system", "content": _text(values, "system")}] if values.get("system") else []
    return [*system, asked, {"role": "assistant", "content": answer}]


def _form_of(values: Mapping[str, Any]) -> Form:
    if "messages" in values:
        return "messages"
    if "instruction" in values:
        return "alpaca"
    if "prompt" in values:
        return "pair"
    raise NotAConversationError(f"has none of the fields messages, instruction, prompt {_fields(values)}")


def _alpaca(values: Mapping[str, Any]) -> dict[str, Any]:
    """The user's message; instruction and input stand in it apart too, for templates that give each its heading."""
    instruction = _text(values, "instruction")
    if not values.get("input"):
        return {"role": "user", "content": instruction}
    given = _text(values, "input")
    return {"role": "user", "content": f"{instruction}\n\n{given}", "instruction": instruction, "input": given}


def _messages(found: Any) -> list[Message]:
    if not isinstance(found, list) or not found:
        raise NotAConversationError("has no list of messages in the field 'messages'")
    for message in found:
        if not (isinstance(message, Mapping) and _is_text(message.get("role")) and _is_text(message.get("content"))):
            raise NotAConversationError("has a message without a role and a content that are texts")
    if not any(message["role"] == "assistant" for message in found):
        raise NotAConversationError("has no message of role assistant to learn from")
    return found


def _text(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        raise NotAConversationError(f"has no field '{name}' {_fields(values)}")
    text = values[name]
    if not _is_text(text):
        raise NotAConversationError(f"has {type(text).__name__} in the field '{name}', not text")
    if not text and name != "system":
        raise NotAConversationError(f"has nothing in the field '{name}'")
    return str(text)


def _fields(values: Mapping[str, Any]) -> str:
    return f"(fields: {', '.join(map(repr, list(values)[:8])) or 'none'})"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
