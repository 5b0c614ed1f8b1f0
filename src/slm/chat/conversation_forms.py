"""Records of any data set's form to conversations: a table of forms, each known by its fields."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from slm.chat.records import (
    Conversation,
    Fields,
    Message,
    RecordError,
    check_characters,
    messages_in,
    tools_in,
)
from slm.chat.transcripts import is_transcript, turns

Form = Literal["auto", "messages", "tree", "alpaca", "pair", "transcript"]
Column = Literal["messages", "prompt", "response", "system", "context", "history", "tools"]
"""What ``data.columns`` may name of a conversation."""
Roles = Mapping[str, str]

_LISTS = ("messages", "conversations", "conversation", "dialogue", "dialog", "data")
PROMPTS = ("prompt", "question", "query", "input", "inputs")
ANSWERS = ("output", "response", "completion", "answer", "targets")
_SYSTEMS = ("system", "system_prompt", "system_message")


class Read(NamedTuple):
    """A conversation, and the form in which it was found, for people."""

    conversation: Conversation
    form: str


class _Kind(NamedTuple):
    fits: Callable[[Fields], bool]
    read: Callable[[Fields, Roles], Read]


def conversation_of(fields: Fields, form: Form = "auto", roles: Roles | None = None) -> Read:
    """The conversation of a record in the form that is named or, with ``auto``, in the first of these that fits:
    ``messages``: a list of role and content, of from and value (ShareGPT), or of texts (LIMA); ``tree``: of OASST, the
    best-ranked path; ``alpaca``: ``instruction`` and an answer; ``pair``: ``prompt``, ``question``, … and an answer;
    ``transcript``: a ``text`` with headings. `RecordError` if there is none, or it is without text, has no response,
    or holds half a character."""
    if form == "auto":
        found = next((kind for kind in _FORMS.values() if kind.fits(fields)), None)
        if found is None:
            raise RecordError(f"has no form of a conversation {fields}{_mend(fields)}")
    else:
        found = _FORMS[form]
    read = found.read(fields, roles or {})
    if not any(message["role"] == "assistant" for message in read.conversation):
        raise RecordError("has no message of role assistant to learn from")
    read.conversation.tools = tools_in(fields)
    check_characters([*read.conversation, {"tools": read.conversation.tools}])
    return read


class Asked(NamedTuple):
    """A conversation up to an answer, and the fields that it was found in."""

    messages: list[Message]
    names: list[str]


def asked(fields: Fields, names: tuple[str, ...], roles: Roles) -> Asked:
    """The system's message, turns before, and what the first of the fields `names` asks, with what stands beside as its
    context. `RecordError` if no such field is there, or one is no text."""
    name = fields.first(*names)
    if name is None:
        raise RecordError(f"has no field {' or '.join(map(repr, names))} {fields}{_mend(fields)}")
    value = fields[name]
    before, context = [], []
    if is_transcript(value) and turns(value)[-1] == {"role": "assistant", "content": ""}:
        messages = turns(value)[:-1]
    elif not isinstance(value, str):
        messages = messages_in(value, name, roles)
    else:
        before = [one for one in ("history",) if fields.get(one)]
        context = [one for one in ("input", "context") if one != name and fields.get(one)]
        question = {"role": "user", "content": fields.text(name)}
        if context:  # apart, too, for templates that give each its heading
            question |= {"instruction": question["content"], "input": "\n\n".join(map(fields.text, context))}
            question["content"] += f"\n\n{question['input']}"
        messages = [*(_history(fields, roles) if before else []), question]
    return Asked(with_system(fields, messages), [*_system(fields), *before, name, *context])


def with_system(fields: Fields, messages: list[Message]) -> list[Message]:
    """Messages with the field of the system's ahead, unless they begin with it themselves."""
    if not (names := _system(fields)):
        return messages
    system = {"role": "system", "content": fields.text(names[0])}
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"] != system["content"]:
            raise RecordError(f"has another message of the system in the field '{names[0]}' than in its messages")
        return messages
    return [system, *messages]


def _system(fields: Fields) -> list[str]:
    return [name for name in _SYSTEMS if fields.get(name)][:1]


def _history(fields: Fields, roles: Roles) -> list[Message]:
    """Turns ahead of the question: pairs of texts, or messages."""
    found = fields["history"]
    if isinstance(found, list) and all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in found):
        return messages_in([text for turn in found for text in turn], "history", roles)
    return messages_in(found, "history", roles)


def answer_in(fields: Fields, name: str, roles: Roles) -> list[Message]:
    """The field `name`, a text or messages, as messages."""
    value = fields[name]
    if isinstance(value, list | Mapping):
        return messages_in(value, fields.called(name), roles)
    return [{"role": "assistant", "content": fields.text(name)}]


def _list_name(fields: Fields) -> str | None:
    """The field that holds the messages; ``data`` does where it holds texts (UltraChat)."""
    lists = {name: fields.peek(name) for name in _LISTS if isinstance(fields.peek(name), list) or name == "messages"}
    if isinstance(texts := lists.get("data"), list) and not all(isinstance(text, str) for text in texts):
        del lists["data"]
    return next((name for name in lists if name in fields), None)


def _messages(fields: Fields, roles: Roles) -> Read:
    name = _list_name(fields) or "messages"
    value = fields.get(name)
    messages = messages_in(value, fields.called(name), roles)
    first = value[0] if isinstance(value, list) else None
    spelt = " as from/value" if isinstance(first, Mapping) and "from" in first else ""
    spelt = " as texts, the user's first" if isinstance(first, str) else spelt
    return Read(Conversation(with_system(fields, messages)), f"{fields.called(name)}{spelt}")


def _single(*names: str) -> _Kind:
    """A question and its answer, in a field each."""

    def fits(fields: Fields) -> bool:
        return fields.first(*names) is not None and fields.first(*ANSWERS) is not None

    def read(fields: Fields, roles: Roles) -> Read:
        if isinstance(fields.peek("label"), bool):
            raise RecordError(f"has a label: not every answer is to be learnt, see task=kto {fields}")
        before, found_in = asked(fields, names, roles)
        answers = [name for name in ANSWERS if name in fields]
        if not answers:
            raise RecordError(f"has no field 'output' or 'response' {fields}{_mend(fields)}")
        if len(answers) > 1:
            several = " and ".join(map(repr, answers))
            named = f"data.columns={{prompt: {fields.first(*names)}, response: {answers[0]}}}"
            raise RecordError(f"has answers in {several}; say which is learnt, {named}")
        after = answer_in(fields, answers[0], roles)
        return Read(Conversation([*before, *after]), fields.path(*found_in, answers[0]))

    return _Kind(fits, read)


def _tree(fields: Fields, _: Roles) -> Read:
    """The best-ranked reply at every branch; what the prompter says last has no answer."""
    path: list[Message] = []
    node = fields.get("prompt")
    while isinstance(node, Mapping):
        path.append({"role": "assistant" if node.get("role") == "assistant" else "user", "content": node.get("text")})
        replies = node.get("replies")
        given = [reply for reply in replies if isinstance(reply, Mapping)] if isinstance(replies, list) else []
        node = min((reply for reply in given if not reply.get("deleted")), key=_rank, default=None)
    if path and path[-1]["role"] == "user":
        path.pop()
    if not all(isinstance(message["content"], str) for message in path):
        raise RecordError("has a message without a text in its tree")
    return Read(Conversation(path), "OASST trees, of each the best-ranked path")


def _rank(reply: Mapping[str, Any]) -> float:
    rank = reply.get("rank")
    return rank if isinstance(rank, int | float) and rank == rank else float("inf")  # a table has nan for none


def _transcript(fields: Fields, _: Roles) -> Read:
    text = fields.text("text")
    if not is_transcript(text):
        raise RecordError("has a text without the headings 'Human:' and 'Assistant:'")
    return Read(Conversation(with_system(fields, turns(text))), "transcripts of Human and Assistant in 'text'")


def _mend(fields: Fields) -> str:
    """What could be done about a record of no form."""
    there = set(fields)
    if {"message_id", "text", "role"} <= there:
        return "; it is one message of a tree (data.form=auto or tree puts such rows together)"
    if {"chosen", "rejected"} <= there:
        return "; it is a pair of answers, for task=dpo"
    if there == {"text"}:
        return "; a text alone is for task=pretrain data=jsonl"
    return fields.mend("messages", "prompt", "response")


_FORMS: dict[str, _Kind] = {
    "messages": _Kind(lambda fields: _list_name(fields) is not None, _messages),
    "tree": _Kind(lambda fields: isinstance(fields.peek("prompt"), Mapping), _tree),
    "alpaca": _single("instruction"),
    "pair": _single(*PROMPTS),
    "transcript": _Kind(lambda fields: is_transcript(fields.peek("text")), _transcript),
}
