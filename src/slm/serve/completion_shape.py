"""`/v1/completions`: texts that go on with texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from slm.generation.config import Prompt
from slm.generation.request import Alternatives, Token
from slm.serve.answers import CompletionChoice, CompletionLogprobs, Finish
from slm.serve.bodies import CompletionAsked
from slm.serve.jobs import Text
from slm.serve.request_error import RequestError
from slm.serve.served import Served
from slm.serve.shape import Shape, as_json_number, texts_of

_NO_CONVERSATION = {"chat": False, "system": None, "template_args": None}


class CompletionShape(Shape):
    """Of one request."""

    kind = chunk_kind = "text_completion"
    id_prefix = "cmpl"

    def __init__(self, asked: CompletionAsked, served: Served) -> None:
        n = asked.n or 1
        if asked.best_of not in (None, n):
            raise RequestError(f"best_of is {asked.best_of} and n is {n}; they must be equal", param="best_of")
        settings = replace(
            served.settled(asked.sampling() | _NO_CONVERSATION), n=n, logprobs=asked.logprobs is not None
        )
        self._most = asked.logprobs
        self._echoes = bool(asked.echo)
        self._prompts = _prompts(asked)
        reads = self._echoes and self._most is not None
        texts = texts_of(served, self._prompts, settings, asked.max_tokens, self._most or 0, reads)
        self._sent = dict.fromkeys(range(len(texts)), 0)  # characters of each text
        super().__init__(asked, served, settings, texts)

    def choice(self, text: Text) -> CompletionChoice:
        assert text.completion is not None, "it has ended"
        echo, ids = self._echo(text), _ids(text)
        told: CompletionLogprobs | None = None
        if self._most is not None:
            told = self._of_prompt(text) if self._echoes else self._logprobs([], [], [], [])
            offsets = self.served.names.offsets([one.token_id for one in text.tokens], ids, len(echo))
            told = _joined(told, self._of_tokens(text.tokens, offsets))
        return _choice(text, echo + text.completion.text, told, self.finish(text))

    def begun(self, text: Text) -> CompletionChoice:
        echo = self._echo(text)
        self._sent[text.index] = len(echo)
        told = self._of_prompt(text) if self._echoes and self._most is not None else None
        return _choice(text, echo, told, None)

    def news(self, text: Text, piece: str, token: Token) -> CompletionChoice | None:
        if not piece and self._most is None:
            return None
        told = None if self._most is None else self._of_tokens([token], [self._sent[text.index]])
        self._sent[text.index] += len(piece)
        return _choice(text, piece, told, None)

    def ended(self, text: Text, piece: str) -> CompletionChoice:
        end = text.tokens[len(text.growing.ids) :]  # the end of text, if it came
        told = self._of_tokens(end, [self._sent[text.index]]) if end else None
        return _choice(text, piece, told, self.finish(text))

    def _echo(self, text: Text) -> str:
        if not self._echoes:
            return ""
        prompt = self._prompts[text.prompt]
        return prompt.text if prompt.ids is None else self.served.language_model.tokenizer.decode(prompt.ids)

    def _of_prompt(self, text: Text) -> CompletionLogprobs:
        ids = _ids(text)
        if text.read is None or not ids:  # what stands for an empty prompt is no token of it
            return self._logprobs([], [], [], [])
        offsets = self.served.names.offsets(ids, [], 0)
        return self._logprobs(ids, text.read.logprobs, text.read.alternatives, offsets)

    def _of_tokens(self, tokens: Sequence[Token], offsets: Sequence[int]) -> CompletionLogprobs:
        ids, logprobs = [token.token_id for token in tokens], [token.logprob for token in tokens]
        return self._logprobs(ids, logprobs, [token.alternatives for token in tokens], offsets)

    def _logprobs(
        self,
        ids: Sequence[int],
        logprobs: Sequence[float | None],
        alternatives: Sequence[Alternatives],
        offsets: Sequence[int],
    ) -> CompletionLogprobs:
        names = self.served.names
        tops = [
            None if logprob is None else self._top(((token_id, logprob), *others))
            for token_id, logprob, others in zip(ids, logprobs, alternatives, strict=True)
        ]
        return {
            "tokens": [names.name(token_id) for token_id in ids],
            "token_logprobs": list(map(as_json_number, logprobs)),
            "top_logprobs": tops if self._most else None,
            "text_offset": list(offsets),
        }

    def _top(self, candidates: Sequence[tuple[int, float]]) -> dict[str, float]:
        """By names; of two that are spelt alike the likelier."""
        found: dict[str, float] = {}
        for token_id, logprob in sorted(candidates, key=lambda one: -one[1]):
            found.setdefault(self.served.names.name(token_id), cast(float, as_json_number(logprob)))
        return found


def _prompts(asked: CompletionAsked) -> list[Prompt]:
    prompt: Any = asked.prompt
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        prompt = [prompt]
    return [Prompt(one) if isinstance(one, str) else Prompt(ids=list(one)) for one in prompt]


def _ids(text: Text) -> list[int]:
    return list(text.growing.request.prompt_ids)


def _choice(text: Text, said: str, logprobs: CompletionLogprobs | None, finish: Finish | None) -> CompletionChoice:
    return {"text": said, "index": text.index, "logprobs": logprobs, "finish_reason": finish}


def _joined(first: CompletionLogprobs, second: CompletionLogprobs) -> CompletionLogprobs:
    def both(name: str) -> Any:
        one, other = cast(Mapping[str, Any], first)[name], cast(Mapping[str, Any], second)[name]
        return None if other is None else [*(one or []), *other]

    return cast(CompletionLogprobs, {name: both(name) for name in second})
