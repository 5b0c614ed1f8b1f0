"""Conversations to tokens by a chat template: the one place that renders, for training and for generation."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from slm.chat.jinja_chat import RESPONSE_BEGINS, RESPONSE_ENDS, rendered
from slm.chat.records import Message, is_learnt, is_message
from slm.errors import UserError
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.stream import common_prefix

_QUOTE = "\ufdd2"  # stands around the number of a special token that a message spells
_RESERVED = (RESPONSE_BEGINS, RESPONSE_ENDS, _QUOTE)  # Unicode noncharacters: no text has a use for them
_MARK = re.compile(f"[{RESPONSE_BEGINS}{RESPONSE_ENDS}]")
_QUOTED = re.compile(f"{_QUOTE}([0-9]+){_QUOTE}")
_PRIVATE = "\ue000"  # a message's content that no template writes by itself
_LETTER = "b"
_ASKED = [{"role": "user", "content": "a"}]
_ANSWER = {"role": "assistant", "content": _LETTER}


@dataclass(frozen=True)
class Sample:
    """A conversation as tokens, begin and end included."""

    ids: list[int]
    learnt: list[bool]  # it belongs to a response, or ends one
    n_bytes: list[int]  # of the text that it stands for; special tokens for none


class _Asked(NamedTuple):
    ids: list[int]  # of a conversation up to an answer
    answer_ids: list[int]  # of a short answer behind it
    space: str  # at the end, that is the answer's


class ChatRenderer:
    """Renders conversations by the template that `tokenizer` carries.

    A conversation is encoded whole, as `transformers` does it, but that special tokens come from the template alone. A
    token that stands across the border of a response is the response's; so is white space at the end of a prompt that
    the vocabulary joins to letters: generation goes on from the very ids that training had. A template may write the
    time: `now`, or None for when it is rendered. `UserError` if there is no template, or special tokens cannot be told
    (see `Tokenizer.to_huggingface`).
    """

    def __init__(self, tokenizer: Tokenizer, now: datetime | None = None) -> None:
        if tokenizer.chat_template is None:
            raise UserError("the model has no chat template, so that it answers no messages; set chat=false")
        self._tokenizer = tokenizer
        self._now = now
        self._source: str = tokenizer.chat_template
        self._specials = list(tokenizer.special_tokens)
        self._special_ids = frozenset(tokenizer.special_tokens.values())
        end = next((text for text, token_id in tokenizer.special_tokens.items() if token_id == tokenizer.eos_id), "")
        self._names = {"eos_token": end, **tokenizer.special_names}  # spellings that the template may ask for

    def prompt_ids(self, messages: Sequence[Message], tools: Any = None) -> list[int]:
        """Ids of a conversation, up to where the assistant's next words begin: all that the template writes, but for
        white space at its end that the first token of an answer, of one that begins with a letter, takes in.
        `UserError` if the template is broken or refuses the conversation, or a message is not one."""
        return self._asked(messages, tools).ids

    @functools.cached_property
    def answer_lead(self) -> str:
        """White space that a model writes after `prompt_ids` ahead of its answer: the template's own, or what the
        vocabulary puts before every text."""
        decoder = self._tokenizer.decoder_after(self._probe.ids)
        return _leading_space("".join(map(decoder.push, self._probe.answer_ids)) + decoder.flush())

    def sample(self, messages: Sequence[Message], tools: Any = None) -> Sample:
        """Ids of a whole conversation, and which are to be learnt.

        Responses are what ``{% generation %}`` blocks hold or, in a template without, what each assistant's message
        adds to the conversation before it; in both cases with the special token that ends them. A response at the end
        that no special token ends gets the end of text. `UserError` as of `prompt_ids`, and if there is no response, or
        none can be found since the template writes a conversation's beginning otherwise once more follows.
        """
        marked = self._render(messages, tools)
        text = _MARK.sub("", marked)
        spans = _marked_spans(marked) if _MARK.search(marked) else self._added_spans(messages, tools, text)
        if not spans:
            raise UserError("the conversation has no response to learn: no message of role assistant")
        weights = [is_learnt(message) for message in messages if message["role"] == "assistant"]
        if not all(weights):
            if len(weights) != len(spans):
                raise UserError("the chat template does not write one response a message, so that weights tell nothing")
            spans = [span for span, is_wanted in zip(spans, weights, strict=True) if is_wanted]
        parts = self._parts(text)
        placed = self._tokenizer.encode_parts(parts)
        learnt = np.zeros(len(placed), dtype=np.bool_)
        for start, stop in spans:
            before = self._meant(text[:start]).removesuffix(self._probe.space)
            end = len(self._meant(text[: self._turn_end(text, start, stop)]))
            learnt |= placed.within(len(before), end, self._special_ids)
        if not learnt.any():
            raise UserError("the conversation has no response to learn: the chat template writes none")
        n_bytes = placed.text_bytes(parts, self._tokenizer.bytes_of_id)
        if learnt[-1] and placed.ids[-1] not in self._special_ids:
            return Sample([*placed.ids, self._tokenizer.eos_id], [*learnt.tolist(), True], [*n_bytes, 0])
        return Sample(placed.ids, learnt.tolist(), n_bytes)

    def plain_texts(self, messages: Sequence[Message], tools: Any = None) -> list[str]:
        """A whole conversation as text, in parts, without its special tokens: what a vocabulary can be fitted on."""
        return [part for part in self._parts(self._text(messages, tools))[::2] if part]

    @functools.cached_property
    def own_beginning(self) -> str:
        """What the template writes ahead of a conversation without a system's message, and ahead of no later turn: a
        message of its own, say. Without special tokens."""
        first, answer, second = ({"role": role, "content": _PRIVATE} for role in ("user", "assistant", "user"))
        try:
            text = self._tokenizer.special_pattern.sub("", self._text([first, answer, second]))
            before, _, between, *_ = text.split(_PRIVATE)
        except (UserError, ValueError):  # a template that insists on more than this, or writes less
            return ""
        return before.removesuffix(common_prefix(before[::-1], between[::-1])[::-1]).strip()

    @functools.cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end a response: the end of text, and the special token, if any, that the template has after one."""
        try:
            answered = self.sample([*_ASKED, _ANSWER])
        except UserError:  # a template that insists on more than this
            return (self._tokenizer.eos_id,)
        last = [token_id for token_id, learnt in zip(answered.ids, answered.learnt, strict=True) if learnt][-1]
        return tuple(dict.fromkeys((self._tokenizer.eos_id, *({last} & self._special_ids))))

    def _asked(self, messages: Sequence[Message], tools: Any = None) -> _Asked:
        parts = self._parts(self._text(messages, tools, add_generation_prompt=True))
        text = "".join(parts)
        parts[-1] += self._space_before_answers
        parts[-1] += (self._word_behind_space if parts[-1].endswith(" ") else "") or _LETTER
        placed = self._tokenizer.encode_parts(parts)
        first = int(placed.within(len(text), sum(map(len, parts)), self._special_ids).argmax())
        while first and placed.ends[first - 1] > placed.starts[first]:  # bytes of one character
            first -= 1
        return _Asked(placed.ids[:first], placed.ids[first:], text[placed.ends[first - 1] if first else 0 :])

    @functools.cached_property
    def _word_behind_space(self) -> str:
        """Letters that a token of the vocabulary has behind a space; "" where none has."""
        before = self._tokenizer.encode("a")  # for in some vocabularies the first token of a text loses its space
        length = len(self._tokenizer.decode(before))
        texts = (self._tokenizer.decode([*before, token_id])[length:] for token_id in range(self._tokenizer.vocab_size))
        return next((text[1:] for text in texts if text[:1] == " " and text[1:].isalpha()), "")

    def _turn_end(self, text: str, start: int, stop: int) -> int:
        """Where a response really ends: after the last special token in it, or the one right behind it."""
        specials = self._tokenizer.special_pattern
        last = next(reversed([*specials.finditer(text, start, stop)]), specials.match(text, stop))
        return last.end() if last else stop

    def _added_spans(self, messages: Sequence[Message], tools: Any, text: str) -> list[tuple[int, int]]:
        spans = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._text(messages[:i], tools, add_generation_prompt=True)
            after = text if i + 1 == len(messages) else self._text(messages[: i + 1], tools)
            if not (after.startswith(before) and text.startswith(after)):
                raise UserError(
                    f"the chat template writes message {i + 1} otherwise once more follows, so that no response can "
                    "be found: put {% generation %} … {% endgeneration %} around it in the template, or train on "
                    "conversations of one response"
                )
            spans.append((len(before), len(after)))
        return spans

    def _text(self, messages: Sequence[Message], tools: Any = None, add_generation_prompt: bool = False) -> str:
        return _MARK.sub("", self._render(messages, tools, add_generation_prompt))

    def _render(self, messages: Sequence[Message], tools: Any = None, add_generation_prompt: bool = False) -> str:
        """The text, responses marked, with special tokens that messages spell replaced by quoted numbers."""
        for message in messages:
            if not is_message(message):
                raise UserError(f"a message needs a role and a content, both texts; got {str(dict(message))[:80]}")
        for name in ("tools", "tool_calls"):
            given = tools if name == "tools" else any(message.get(name) for message in messages)
            if given and not re.search(rf"\b{name}\b", self._source):
                raise UserError(f"the chat template has no place for {name}; take one that has, or leave them out")
        names = {"tools": self._quoted(tools), "add_generation_prompt": add_generation_prompt, **self._names}
        names["messages"] = [self._quoted(message) for message in messages]
        return rendered(self._source, self._now, **names)

    def _quoted(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: self._quoted(one) for name, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._quoted(one) for one in value]
        if not isinstance(value, str):
            return value
        if any(mark in value for mark in _RESERVED):
            raise UserError("a message holds one of the characters U+FDD0 to U+FDD2, which no text may; take it out")
        pattern = self._tokenizer.special_pattern
        return pattern.sub(lambda found: f"{_QUOTE}{self._specials.index(found[0])}{_QUOTE}", value)

    def _parts(self, text: str) -> list[str]:
        parts = self._tokenizer.special_pattern.split(text)
        parts[::2] = map(self._meant, parts[::2])
        return parts

    def _meant(self, text: str) -> str:
        """A rendered text with what messages spell in it as they do."""
        return _QUOTED.sub(lambda quote: self._specials[int(quote[1])], text) if _QUOTE in text else text

    @functools.cached_property
    def _probe(self) -> _Asked:
        """Of a short conversation; empty for a template that insists on more than this."""
        try:
            return self._asked(_ASKED)
        except UserError:
            return _Asked([], [], "")

    @functools.cached_property
    def _space_before_answers(self) -> str:
        """White space that the template writes between the end of a prompt and an answer."""
        try:
            before, whole = self._text(_ASKED, add_generation_prompt=True), self._text([*_ASKED, _ANSWER])
        except UserError:
            return ""
        return _leading_space(whole[len(before) :]) if whole.startswith(before) else ""


def _leading_space(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


def _marked_spans(marked: str) -> list[tuple[int, int]]:
    """(start, end) of the marked parts, counted in the text without the marks."""
    parts = re.split(f"({RESPONSE_BEGINS}[^{RESPONSE_ENDS}]*{RESPONSE_ENDS})", marked)
    ends = list(accumulate(len(_MARK.sub("", part)) for part in parts))
    return list(zip(ends[:-1:2], ends[1::2], strict=True))
