"""Conversations to tokens by a chat template: the one place that renders, for training and for generation."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slm.data.templates.jinja_chat import RESPONSE_BEGINS, RESPONSE_ENDS, compiled
from slm.data.templates.limited_renderer import LimitedRenderer
from slm.errors import UserError
from slm.registry import TEMPLATES
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.text_bytes import stretched

Message = Mapping[str, Any]
"""``role`` (``system``, ``user``, ``assistant``, …) and ``content``, and what else a template reads."""

_QUOTE = "\ufdd2"  # stands around the number of a special token that a message spells
_RESERVED = (RESPONSE_BEGINS, RESPONSE_ENDS, _QUOTE)  # Unicode noncharacters: no text has a use for them
_MARK = re.compile(f"[{RESPONSE_BEGINS}{RESPONSE_ENDS}]")
_QUOTED = re.compile(f"{_QUOTE}([0-9]+){_QUOTE}")


@dataclass(frozen=True)
class Sample:
    """A conversation as tokens.

    Attributes:
        ids: all of it, begin and end included.
        learnt: for each, whether it belongs to a response (what ends the response does).
        n_bytes: for each, how many bytes of the text it stands for; special tokens for none.
    """

    ids: list[int]
    learnt: list[bool]
    n_bytes: list[int]


class ChatRenderer:
    """Renders conversations by the template that `tokenizer` carries.

    Special tokens come from the template alone: a message that spells one is encoded as ordinary text. No token
    stands across the border of a response, so that a response follows in training the very ids that
    `prompt_ids` gives in generation.

    Args:
        tokenizer: with a chat template.

    Raises:
        UserError: it has none, or its special tokens cannot be told (see `Tokenizer.to_huggingface`).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.chat_template is None:
            raise UserError(
                "the model has no chat template: it goes on with texts, and does not answer messages (chat=false)"
            )
        self._tokenizer = tokenizer
        self._source: str = tokenizer.chat_template
        self._specials = list(tokenizer.special_tokens)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation, up to where the assistant's next words begin.

        Raises:
            UserError: the template is broken or refuses the conversation, or a message is not one.
        """
        return self._encode(_MARK.sub("", self._render(messages, add_generation_prompt=True)))

    def sample(self, messages: Sequence[Message]) -> Sample:
        """Ids of a whole conversation, and which are to be learnt.

        Responses are what ``{% generation %}`` blocks hold or, in a template without, what each assistant's message
        adds to the conversation before it; in both cases with the special token that ends them. A response at the end
        that no special token ends gets the end of text.

        Raises:
            UserError: as `prompt_ids`; there is no response; or the template writes a conversation's beginning
                otherwise once more follows, so that responses cannot be found.
        """
        marked = self._render(messages)
        text = _MARK.sub("", marked)
        spans = _marked_spans(marked) if _MARK.search(marked) else self._added_spans(messages, text)
        if not spans:
            raise UserError("the conversation has no response to learn: no message of role assistant")
        ids: list[int] = []
        learnt: list[bool] = []
        n_bytes: list[int] = []
        for part, is_response in self._parts(text, spans):
            new = self._encode(part)
            ids += new
            learnt += [is_response] * len(new)
            n_bytes += self._text_bytes(part, new)
        if not any(learnt):
            raise UserError("the conversation has no response to learn: the chat template writes none")
        if learnt[-1] and ids[-1] not in self._tokenizer.special_tokens.values():
            ids.append(self._tokenizer.eos_id)
            learnt.append(True)
            n_bytes.append(0)
        return Sample(ids, learnt, n_bytes)

    def plain_texts(self, messages: Sequence[Message]) -> list[str]:
        """A whole conversation as text, in parts, without its special tokens: what a vocabulary can be fitted on."""
        return self._plain(_MARK.sub("", self._render(messages)))

    def _plain(self, text: str) -> list[str]:
        """A rendered text without the special tokens that the template wrote, in parts."""
        parts = self._tokenizer.special_pattern.split(text)
        plain = [part for part in parts if part and part not in self._tokenizer.special_tokens]
        return [_QUOTED.sub(lambda quote: self._specials[int(quote[1])], part) for part in plain]

    def _text_bytes(self, text: str, ids: Sequence[int]) -> list[int]:
        """How many bytes of a rendered `text` each of its `ids` stands for."""
        found = self._tokenizer.bytes_of_id[list(ids)]
        plain = self._plain(text)
        size = sum(len(part.encode()) for part in plain)
        if int(found.sum()) != size:
            specials = np.isin(ids, list(self._tokenizer.special_tokens.values()))
            places = np.flatnonzero(~specials)
            runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
            if len(runs) == len(plain):
                for run, part in zip(runs, plain, strict=True):
                    found[run] = self._tokenizer.text_bytes(part, np.array(ids)[run])
            else:
                found[places] = stretched(found[places], size)
        return found.tolist()

    @functools.cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end a response: the end of text, and the special token that the template writes after one."""
        try:
            probe = self.sample([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        except UserError:  # a template that insists on more than this
            return (self._tokenizer.eos_id,)
        last = [token_id for token_id, learnt in zip(probe.ids, probe.learnt, strict=True) if learnt][-1]
        return tuple(dict.fromkeys((self._tokenizer.eos_id, last)))

    def _parts(self, text: str, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
        """The parts of `text`, each with whether it is a response."""
        end = 0
        for start, stop in spans:
            yield text[end:start], False
            end = self._turn_end(text, start, stop)
            yield text[start:end], True
        yield text[end:], False

    def _turn_end(self, text: str, start: int, stop: int) -> int:
        """Where a response really ends: after the last special token in it, or the one right behind it."""
        found = [match.end() for match in self._tokenizer.special_pattern.finditer(text, start, stop)]
        if found:
            return found[-1]
        behind = self._tokenizer.special_pattern.match(text, stop)
        return behind.end() if behind else stop

    def _added_spans(self, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
        """(start, end) of what each assistant's message adds to `text`, the whole conversation."""
        spans = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._render(messages[:i], add_generation_prompt=True)
            after = text if i + 1 == len(messages) else self._render(messages[: i + 1])
            if not (after.startswith(before) and text.startswith(after)):
                raise UserError(
                    f"the chat template writes message {i + 1} otherwise once more follows, so that no response can "
                    "be found: put {% generation %} … {% endgeneration %} around it in the template, or train on "
                    "conversations of one response"
                )
            spans.append((len(before), len(after)))
        return spans

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The text, with special tokens that messages spell replaced by quoted numbers."""
        import jinja2

        quoted = [self._quoted(message) for message in messages]
        try:
            return self._write(messages=quoted, add_generation_prompt=add_generation_prompt, **self._names)
        except jinja2.TemplateError as error:
            raise UserError(f"the model's chat template refuses this: {error}") from None

    def _quoted(self, message: Message) -> dict[str, Any]:
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise UserError(f"a message needs a role and a content, both texts; got {str(dict(message))[:80]}")
        return {name: self._quoted_text(value) if isinstance(value, str) else value for name, value in message.items()}

    def _quoted_text(self, text: str) -> str:
        if any(mark in text for mark in _RESERVED):
            raise UserError("a message holds one of the characters U+FDD0 to U+FDD2, which no text may; take it out")
        return self._tokenizer.special_pattern.sub(
            lambda found: f"{_QUOTE}{self._specials.index(found[0])}{_QUOTE}", text
        )

    def _encode(self, text: str) -> list[int]:
        if _QUOTE not in text:
            return self._tokenizer.encode_rendered(text) if text else []
        ids: list[int] = []
        for part in self._tokenizer.special_pattern.split(text):
            special = self._tokenizer.special_tokens.get(part)
            spelled = _QUOTED.sub(lambda quote: self._specials[int(quote[1])], part)
            ids += [special] if special is not None else self._tokenizer.encode(spelled)
        return ids

    @functools.cached_property
    def _write(self) -> Callable[..., str]:
        """Renders: a template that came with a vocabulary, or in a file, where it can do no harm."""
        ours = (TEMPLATES.get(name)(self._tokenizer).source for name in TEMPLATES.names() if name != "hf")
        return compiled(self._source).render if self._source in ours else LimitedRenderer(self._source).render

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        """``bos_token``, ``eos_token``, …: spellings that the template may ask for."""
        names = dict(self._tokenizer.special_names)
        if "eos_token" not in names:
            spelling_of = {token_id: text for text, token_id in self._tokenizer.special_tokens.items()}
            names["eos_token"] = spelling_of.get(self._tokenizer.eos_id, "")
        return names


def _marked_spans(marked: str) -> list[tuple[int, int]]:
    """(start, end) of the marked parts, counted in the text without the marks."""
    spans, length = [], 0
    for part in re.split(f"({RESPONSE_BEGINS}[^{RESPONSE_ENDS}]*{RESPONSE_ENDS})", marked):
        plain = _MARK.sub("", part)
        if part.startswith(RESPONSE_BEGINS):
            spans.append((length, length + len(plain)))
        length += len(plain)
    return spans
