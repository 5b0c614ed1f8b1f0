"""What a record of a data set is, and the messages in it, however they are spelt."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from slm.errors import first_few
from slm.files.reading import is_unicode

Message = Mapping[str, Any]
"""``role`` (``system``, ``user``, ``assistant``, ``tool``, …) and ``content``, both texts, and what else a template
reads; one with ``tool_calls`` may have no content. One of ``weight`` 0 is not learnt."""
Tools = Sequence[Any] | None
"""What a model may call, as JSON schemas: a template's ``tools``."""

_ROLES = {
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "bot", "ai"), "assistant"),
    **dict.fromkeys(("observation", "function", "function_response", "tool_response"), "tool"),
}
_KNOWN = ("system", "developer", "user", "assistant", "tool", "function_call")
_TEXT_PARTS = ("text", "input_text", "output_text")
_BESIDE = ("system", "system_prompt", "context", "history", "tools", "functions")
"""Fields that are read beside those which ``data.columns`` names."""


class RecordError(ValueError):
    """A record that is not what is read; its text says why."""


class Conversation(list[Message]):
    """Messages, and the tools that the model may call in them."""

    def __init__(self, messages: Iterable[Message], tools: Tools = None) -> None:
        super().__init__(messages)
        self.tools = tools


class Fields(Mapping[str, Any]):
    """The fields of a record that are not null, by their own names or by those that `columns` gives them; it knows
    which were `read`. With `columns` no others are seen, but for those that stand beside."""

    def __init__(self, values: Mapping[str, Any], columns: Mapping[str, str] | None = None) -> None:
        self._values = {name: value for name, value in values.items() if value is not None}
        self._columns = columns or {}
        self.read: set[str] = set()
        for name, field in self._columns.items():
            if field.partition(".")[0] not in self._values:
                raise RecordError(f"has no field '{field}' (data.columns: {name}) {self}")

    def __getitem__(self, name: str) -> Any:
        value = self.peek(name)
        if name not in self:
            raise KeyError(name)
        self.read.add(self.called(name).partition(".")[0])
        return value

    def peek(self, name: str) -> Any:
        """The field's value, None if it is not there; it does not count as read."""
        if name not in self:
            return None
        field, value = self.called(name), self._values
        for part in [field] if field in value else field.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise RecordError(f"has no field '{field}' (data.columns: {name}) {self}")
            value = value[part]
        return value

    def __contains__(self, name: object) -> bool:
        if name in self._columns:
            return True
        hidden = self._columns and (name not in _BESIDE or name in self._columns.values())
        return name in self._values and not hidden

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def called(self, name: str) -> str:
        """What the record calls it."""
        return self._columns.get(name, name)

    def path(self, *names: str) -> str:
        """Several, by what the record calls them: ``question/answer``."""
        return "/".join(map(self.called, names))

    def __str__(self) -> str:
        """``(fields: 'a', 'b')``."""
        return f"(fields: {first_few(list(map(repr, self._values)), most=8) or 'none'})"

    def first(self, *names: str) -> str | None:
        """Of these fields the first that is there."""
        return next((name for name in names if name in self), None)

    def text(self, name: str) -> str:
        """`RecordError` if it is missing, empty, or no text."""
        if name not in self:
            raise RecordError(f"has no field '{name}' {self}")
        if not isinstance(text := self[name], str):
            raise RecordError(f"has {type(text).__name__} in the field '{self.called(name)}', not text")
        if not text:
            raise RecordError(f"has nothing in the field '{self.called(name)}'")
        return text

    def mend(self, *wanted: str) -> str:
        """``"; name its fields, data.columns={prompt: q, response: a}"``, the record's own; "" where they are named,
        or none is missing."""
        own = {name: value for name, value in self._values.items() if name not in wanted}
        lists = [name for name, value in own.items() if isinstance(value, list)]
        texts = [name for name, value in own.items() if isinstance(value, str)]
        missing = [name for name in wanted if name not in self._values and name != "messages"]
        if self._columns or not missing:
            return ""
        if lists and "messages" in wanted:
            missing, texts = ["messages"], lists
        named = ", ".join(
            f"{name}: {field}" for name, field in zip_longest(missing, texts[: len(missing)], fillvalue="…")
        )
        return f"; name its fields, data.columns={{{named}}}"


def is_message(value: Any) -> bool:
    """It has a role and a content, and both are texts; or calls tools."""
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
        return False
    content = value.get("content")
    return isinstance(content, str) or (content is None and bool(value.get("tool_calls")))


def is_learnt(message: Message) -> bool:
    """It is the assistant's, and its weight is not 0."""
    return bool(message["role"] == "assistant" and message.get("weight") != 0)


def tools_of(messages: Sequence[Message]) -> Tools:
    """Those of a `Conversation`."""
    return messages.tools if isinstance(messages, Conversation) else None


def messages_in(value: Any, name: str, roles: Mapping[str, str]) -> list[Message]:
    """The messages of the field `name`: mappings of role and content, of ``from`` and ``value``, or texts, the user's
    first. `roles` says what the record calls them, beside the names in use. `RecordError` if there are none, or one
    has no text."""
    found = _parsed(value)
    if isinstance(found, Mapping):
        found = [found]
    if not isinstance(found, list) or not found:
        raise RecordError(f"has no list of messages in the field '{name}'")
    if all(isinstance(text, str) for text in found):
        return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(found)]
    return [_message(one, roles) for one in found]


def tools_in(fields: Mapping[str, Any]) -> Tools:
    """Of the field ``tools`` or, as OpenAI had them once, ``functions``: a list, or JSON of one. None for none."""
    name = next((name for name in ("tools", "functions") if fields.get(name)), None)
    if name is None:
        return None
    if not isinstance(found := _parsed(fields[name]), list):
        raise RecordError(f"has no list in the field '{name}'")
    given = [_parsed(one) for one in found]
    return given if name == "tools" else [{"type": "function", "function": one} for one in given]


def check_characters(messages: Iterable[Message]) -> None:
    """Raise `RecordError` for half a character anywhere in them."""
    if not is_unicode(json.dumps(list(messages), ensure_ascii=False, default=str)):
        raise RecordError("holds half a surrogate pair, which is no character")


def _message(given: Any, roles: Mapping[str, str]) -> Message:
    if not isinstance(given, Mapping):
        raise RecordError("has a message without a role and a content that are texts")
    message = {name: value for name, value in given.items() if value is not None or name == "content"}
    spelt = message.pop("from", None) if "role" not in message else message["role"]
    usual = str(spelt).lower()
    role = roles.get(str(spelt)) or _ROLES.get(usual) or (usual if usual in _KNOWN else spelt)
    if not isinstance(role, str):
        raise RecordError("has a message without a role and a content that are texts")
    if "role" not in message and role not in _KNOWN and role not in roles.values():
        raise RecordError(f"has a message from '{role}'; say who that is, data.roles={{{role}: user}} (or assistant)")
    content = next((name for name in ("content", "value", "text") if name in message), None)
    if content is not None:
        message["content"] = _text_of(message.pop(content))
    if role == "function_call":
        message["function_call"], role = _parsed(message.pop("content", None)), "assistant"
    if "function_call" in message:  # of ShareGPT, and of OpenAI once
        message["tool_calls"] = [{"type": "function", "function": message.pop("function_call")}]
    message["role"] = role
    if not is_message(message):
        raise RecordError("has a message without a role and a content that are texts")
    if message.get("weight") not in (None, 0, 1):
        raise RecordError(f"has a message of weight {message['weight']!r}; a weight is 0, for what is not learnt, or 1")
    if not isinstance(calls := message.get("tool_calls", []), list):
        raise RecordError("has a message whose tool_calls are no list")
    if calls:
        message["tool_calls"] = list(map(_call, calls))
    return message


def _text_of(content: Any) -> Any:
    """Of a list of parts the text; `RecordError` if one is something else."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str) or (isinstance(part, Mapping) and part.get("type", "text") not in _TEXT_PARTS):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise RecordError(f"has a part of type {kind!r} in a message; only text is learnt")
        texts.append(text)
    return "".join(texts)


def _call(given: Any) -> Any:
    """A call, its arguments as the object that templates write, not as the JSON text that OpenAI has."""
    function = given.get("function") if isinstance(given, Mapping) else None
    if not isinstance(function, Mapping) or "arguments" not in function:
        return given
    return {**given, "function": {**function, "arguments": _parsed(function["arguments"])}}


def _parsed(value: Any) -> Any:
    """Of a JSON text what it holds; anything else as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
