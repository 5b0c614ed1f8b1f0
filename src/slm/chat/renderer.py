"""Conversations to tokens by a chat template: the one place that renders, for training and for generation."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from slm.chat.records import Message
from slm.chat.writer import ConversationWriter
from slm.errors import UserError
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.stream import common_prefix

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
    time: `now`, or None for when it is rendered. `template_args` are given to it, over those it was trained with.
    `UserError` if there is no template, it reads none of these, or special tokens cannot be told (see
    `Tokenizer.to_huggingface`).
    """

    def __init__(
        self, tokenizer: Tokenizer, now: datetime | None = None, template_args: Mapping[str, Any] | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._writer = ConversationWriter(tokenizer, now, template_args or {})
        self._special_ids = frozenset(tokenizer.special_tokens.values())

    def prompt_ids(self, messages: Sequence[Message], tools: Any = None) -> list[int]:
        """Ids of a conversation, up to where the assistant's next words begin: all that the template writes, but for
        white space at its end that the first token of an answer, of one that begins with a letter, takes in. `tools`
        are the descriptions that the template is given, plain types. `UserError` if the template is broken or refuses
        the conversation, or a message is not one."""
        return self._asked(messages, tools).ids

    @functools.cached_property
    def answer_lead(self) -> str:
        """White space that a model writes after `prompt_ids` ahead of its answer: the template's own, or what the
        vocabulary puts before every text."""
        decoder = self._tokenizer.decoder_after(self._probe.ids)
        return _leading_space("".join(map(decoder.push, self._probe.answer_ids)) + decoder.flush())

    def samples(self, messages: Sequence[Message], tools: Any = None) -> list[Sample]:
        """Ids of a whole conversation, and which are to be learnt: each response (`ConversationWriter.turns`) with the
        special token that ends it. A response at the end that no special token ends gets the end of text.

        Where the template writes a beginning of the conversation otherwise once more follows (without its thoughts,
        say), a response is learnt behind what the model is given when it writes it: in a sample of its own, that ends
        there, beside earlier ones that stand in that unchanged. The last one is of the whole conversation.

        `UserError` as of `prompt_ids`, and if there is no response, or none can be found.
        """
        text, left = self._writer.turns(messages, tools)
        if not left:
            wrote = any(message["role"] == "assistant" for message in messages)
            why = "the chat template writes none" if wrote else "no message of role assistant"
            raise UserError(f"the conversation has no response to learn: {why}")
        samples: list[Sample] = []
        while left:
            spans = [span for turn in left if turn.stands_in(text) for span in turn.spans]
            samples += [self._sample(text, spans)] if spans else []
            left = [turn for turn in left if not turn.stands_in(text)]
            text = left[-1].text if left else text
        return samples[::-1]

    def sample(self, messages: Sequence[Message], tools: Any = None) -> Sample:
        """The last of `samples`, of most templates the only one."""
        return self.samples(messages, tools)[-1]

    def _sample(self, text: str, spans: Sequence[tuple[int, int]]) -> Sample:
        writer = self._writer
        parts = writer.parts(text)
        placed = self._tokenizer.encode_parts(parts)
        learnt = np.zeros(len(placed), dtype=np.bool_)
        for start, stop in spans:
            before = writer.meant(text[:start]).removesuffix(self._probe.space)
            end = len(writer.meant(text[: writer.end_of(text, start, stop)]))
            learnt |= placed.within(len(before), end, self._special_ids)
        if not learnt.any():
            raise UserError("the conversation has no response to learn: the chat template writes none")
        n_bytes = placed.text_bytes(parts, self._tokenizer.bytes_of_id)
        if learnt[-1] and placed.ids[-1] not in self._special_ids:
            return Sample([*placed.ids, self._tokenizer.eos_id], [*learnt.tolist(), True], [*n_bytes, 0])
        return Sample(placed.ids, learnt.tolist(), n_bytes)

    def response(self, messages: Sequence[Message], tools: Any = None) -> str:
        """What the model is to write as the last message, an assistant's: its text in the template's words (with its
        thoughts, say), without white space around."""
        asked, text = self._writer.text(messages[:-1], tools, asking=True), self._writer.text(messages, tools)
        written = text[len(asked) :] if text.startswith(asked) else messages[-1].get("content") or ""
        return self._writer.without_specials(written).strip()

    def plain_texts(self, messages: Sequence[Message], tools: Any = None) -> list[str]:
        """A whole conversation as text, in parts, without its special tokens: what a vocabulary can be fitted on."""
        return [part for part in self._writer.parts(self._writer.text(messages, tools))[::2] if part]

    @functools.cached_property
    def own_beginning(self) -> str:
        """What the template writes ahead of a conversation without a system's message, and ahead of no later turn: a
        message of its own, say. Without special tokens."""
        first, answer, second = ({"role": role, "content": _PRIVATE} for role in ("user", "assistant", "user"))
        try:
            text = self._writer.without_specials(self._writer.text([first, answer, second]))
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
        parts = self._writer.parts(self._writer.text(messages, tools, asking=True))
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
            before, whole = self._writer.text(_ASKED, asking=True), self._writer.text([*_ASKED, _ANSWER])
        except UserError:
            return ""
        return _leading_space(whole[len(before) :]) if whole.startswith(before) else ""


def _leading_space(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]
