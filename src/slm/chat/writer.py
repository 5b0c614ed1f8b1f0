"""Conversations as text by a chat template, and where in it the model's words stand."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any

from slm.chat.jinja_chat import RESPONSE_BEGINS, RESPONSE_ENDS, names_read, rendered
from slm.chat.records import Message, is_learnt
from slm.errors import UserError, did_you_mean
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.stream import common_prefix

_QUOTE = "\ufdd2"  # stands around the number of a special token that a message spells
_RESERVED = (RESPONSE_BEGINS, RESPONSE_ENDS, _QUOTE)  # Unicode noncharacters: no text has a use for them
_MARK = re.compile(f"[{RESPONSE_BEGINS}{RESPONSE_ENDS}]")
_QUOTED = re.compile(f"{_QUOTE}([0-9]+){_QUOTE}")
_OURS = frozenset({"messages", "tools", "documents", "add_generation_prompt"})  # what a template is always given
_REASONING = ("reasoning_content", "thinking", "reasoning")  # data sets have it under any of these names


@dataclass(frozen=True)
class Turn:
    """A conversation as far as a response: what the model had read, and wrote, when it gave that."""

    text: str
    spans: Sequence[tuple[int, int]]  # (start, end) of the characters that are the response's

    def stands_in(self, text: str) -> bool:
        """Whether `text`, of more of the conversation, has the response, and all ahead of it, unchanged."""
        return text.startswith(self.text[: self.spans[-1][1]])


class ConversationWriter:
    """Writes conversations by the template that `tokenizer` carries, the special tokens that messages spell as quoted
    numbers (`meant` puts them back). `UserError` if there is none, or it reads none of the `template_args`, which are
    given to it beside what it was trained with. The time that it may write is `now`, or None for when it is asked."""

    def __init__(self, tokenizer: Tokenizer, now: datetime | None, template_args: Mapping[str, Any]) -> None:
        if tokenizer.chat_template is None:
            raise UserError("the model has no chat template, so that it answers no messages; set chat=false")
        self._source: str = tokenizer.chat_template
        self._now = now
        self._pattern = tokenizer.special_pattern
        self._specials = list(tokenizer.special_tokens)
        end = next((text for text, token_id in tokenizer.special_tokens.items() if token_id == tokenizer.eos_id), "")
        names = {"eos_token": end, **tokenizer.special_names}  # spellings that the template may ask for
        _check_args(template_args, self._source, _OURS.union(names))
        self._names = {**names, **tokenizer.template_args, **template_args}

    def text(self, messages: Sequence[Message], tools: Any = None, asking: bool = False) -> str:
        """The conversation, if `asking` up to where the assistant's next words begin. `UserError` if the template is
        broken or refuses it, or a message is not one."""
        return _MARK.sub("", self._marked(messages, tools, asking))

    def turns(self, messages: Sequence[Message], tools: Any = None) -> tuple[str, list[Turn]]:
        """The whole text, and a turn for each response in it that is to be learnt (not one of ``weight`` 0): what
        ``{% generation %}`` blocks hold or, in a template without, what an assistant's message adds to the prompt ahead
        of it. `UserError` as of `text`, and if that prompt is not what the message then follows."""
        whole = self._marked(messages, tools)
        turns = []
        for i, message in enumerate(messages):
            if not is_learnt(message):
                continue
            asked = self.text(messages[:i], tools, asking=True)
            marked = whole if i + 1 == len(messages) else self._marked(messages[: i + 1], tools)
            text = _MARK.sub("", marked)
            before = len(asked) if text.startswith(asked) else len(common_prefix(text, asked))
            if _MARK.search(whole):
                spans = [(start, end) for start, end in _marked_spans(marked) if end > before]
            elif before == len(asked):
                spans = [(before, len(text))]
            else:
                raise UserError(_refusal(i + 1, text[before:], asked[before:]))
            if spans:
                turns.append(Turn(text, spans))
        return _MARK.sub("", whole), turns

    def parts(self, text: str) -> list[str]:
        """In turn text as it is meant, perhaps empty, and the spelling of a special token."""
        parts = self._pattern.split(text)
        parts[::2] = map(self.meant, parts[::2])
        return parts

    def meant(self, text: str) -> str:
        """A written text with what messages spell in it as they do."""
        return _QUOTED.sub(lambda quote: self._specials[int(quote[1])], text) if _QUOTE in text else text

    def without_specials(self, text: str) -> str:
        """A written text, as it is meant, without the template's special tokens."""
        return "".join(self.parts(text)[::2])

    def end_of(self, text: str, start: int, stop: int) -> int:
        """Where the response from `start` to `stop` really ends: after the last special token in it, or the one right
        behind it."""
        last = next(reversed([*self._pattern.finditer(text, start, stop)]), self._pattern.match(text, stop))
        return last.end() if last else stop

    def _marked(self, messages: Sequence[Message], tools: Any, asking: bool = False) -> str:
        for name in ("tools", "tool_calls"):
            given = tools if name == "tools" else any(message.get(name) for message in messages)
            if given and not re.search(rf"\b{name}\b", self._source):
                raise UserError(f"the chat template has no place for {name}; take one that has, or leave them out")
        names: dict[str, Any] = {"tools": self._quoted(tools), "documents": None, "add_generation_prompt": asking}
        quoted = [self._quoted(_named(message)) for message in messages]
        return rendered(self._source, self._now, {**names, **self._names, "messages": quoted})

    def _quoted(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {self._quoted(name): self._quoted(one) for name, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._quoted(one) for one in value]
        if not isinstance(value, str):
            return value
        if any(mark in value for mark in _RESERVED):
            raise UserError("a message holds one of the characters U+FDD0 to U+FDD2, which no text may; take it out")
        return self._pattern.sub(lambda found: f"{_QUOTE}{self._specials.index(found[0])}{_QUOTE}", value)


def _named(message: Message) -> dict[str, Any]:
    """The message, without what is null, and its reasoning, if any, under the name that templates read, as
    `transformers` 5 gives it to them. `UserError` if it is none."""
    said = {name: value for name, value in message.items() if value is not None}
    if not isinstance(said.get("role"), str) or not (isinstance(said.get("content"), str) or said.get("tool_calls")):
        raise UserError(f"a message needs a role and a content, both texts; got {str(dict(message))[:80]}")
    reasoning = next((said[name] for name in _REASONING if name in said), None)
    return said if reasoning is None else {"thinking": reasoning, **said, _REASONING[0]: reasoning}


def _refusal(number: int, text: str, asked: str) -> str:
    return (
        f"the chat template writes message {number} otherwise than it asks for it (…{text[:40]!r}, not "
        f"…{asked[:40]!r}), so that no response can be found: give it what it reads (task.template_args), or "
        "put {% generation %} … {% endgeneration %} around the response in the template"
    )


def _check_args(given: Mapping[str, Any], source: str, ours: frozenset[str]) -> None:
    if not given:
        return
    known = sorted(names_read(source) - ours)
    for name in given:
        if name not in known:
            what = f"it reads {', '.join(known)}" if known else "it reads none"
            raise UserError(f"template_args: the chat template reads no '{name}'{did_you_mean(name, known)} ({what})")


def _marked_spans(marked: str) -> list[tuple[int, int]]:
    """(start, end) of the marked parts, counted in the text without the marks."""
    parts = re.split(f"({RESPONSE_BEGINS}[^{RESPONSE_ENDS}]*{RESPONSE_ENDS})", marked)
    ends = list(accumulate(len(_MARK.sub("", part)) for part in parts))
    return list(zip(ends[:-1:2], ends[1::2], strict=True))
