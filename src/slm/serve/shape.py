"""A request's texts as an answer: whole, or as the events of a stream."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from slm.generation.config import GenerationConfig, Prompt
from slm.generation.prompt_ids import ids_of_prompts
from slm.generation.request import Token
from slm.serve.answers import Finish, Usage
from slm.serve.bodies import Asked
from slm.serve.jobs import Job, Text
from slm.serve.request_error import RequestError
from slm.serve.served import Served

_LEAST_LOGPROB = -9999.0  # JSON has no infinity; OpenAI's API says so of what is as good as impossible


class Shape(ABC):
    """Of one request; `asked` is its body. `RequestError` or `UserError` where it cannot be met."""

    kind: ClassVar[str]
    chunk_kind: ClassVar[str]
    id_prefix: ClassVar[str]

    def __init__(self, asked: Asked, served: Served, settings: GenerationConfig, texts: Sequence[Text]) -> None:
        self.served = served
        self.settings = settings
        options = asked.stream_options
        self.tells_usage = bool(options and options.include_usage)
        self.job = Job(served.name, texts, bool(asked.stream))
        self._frame = {"id": f"{self.id_prefix}-{secrets.token_hex(12)}", "created": int(time.time())}
        if options and not asked.stream:
            raise RequestError("stream_options is for a stream; set stream, or leave it out", param="stream_options")

    @abstractmethod
    def choice(self, text: Text) -> Mapping[str, Any]:
        """A text that is done."""

    @abstractmethod
    def begun(self, text: Text) -> Mapping[str, Any]:
        """What a stream begins with."""

    @abstractmethod
    def news(self, text: Text, piece: str, token: Token) -> Mapping[str, Any] | None:
        """A token; None where nothing is to be told yet."""

    @abstractmethod
    def ended(self, text: Text, piece: str) -> Mapping[str, Any]:
        """The rest of a text."""

    def whole(self) -> Mapping[str, Any]:
        """All texts, once they are done."""
        choices = [self.choice(text) for text in self.job.texts]
        return self._framed(self.kind, choices) | {"usage": self._usage()}

    def chunk(self, choice: Mapping[str, Any]) -> Mapping[str, Any]:
        """An event of a stream."""
        return self._framed(self.chunk_kind, [choice]) | ({"usage": None} if self.tells_usage else {})

    def last_chunks(self) -> Iterator[Mapping[str, Any]]:
        """What follows once all texts have ended."""
        if self.tells_usage:
            yield self._framed(self.chunk_kind, []) | {"usage": self._usage()}

    def finish(self, text: Text) -> Finish:
        """Why it ended."""
        assert text.completion is not None, "it has ended"
        at_end = text.completion.finish_reason in ("eos", "stop") and not self.job.cut
        return "stop" if at_end else "length"

    def _framed(self, kind: str, choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"object": kind, **self._frame, "model": self.served.name, "choices": choices}

    def _usage(self) -> Usage:
        firsts = {text.prompt: text for text in self.job.texts}  # several texts of a prompt read it once
        read = sum(len(text.growing.request.prompt_ids) for text in firsts.values())
        written = sum(len(text.growing.ids) for text in self.job.texts)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def texts_of(
    served: Served,
    prompts: Sequence[Prompt],
    settings: GenerationConfig,
    budget: int | None,
    alternatives: int,
    reads_prompt: bool = False,
) -> list[Text]:
    """The texts of a request ahead of their first tokens. `RequestError` where the model cannot have one."""
    model = served.language_model
    read = ids_of_prompts(prompts, model.tokenizer, settings)
    texts = []
    for index, growing in enumerate(model.growing(read, prompts, settings)):
        most = settings.max_new_tokens if budget is None else budget
        growing.request = replace(
            growing.request, max_new_tokens=most, alternatives=alternatives, prompt_logprobs=reads_prompt
        )
        if (problem := served.lane.engine.problem(growing.request)) is not None:
            where = f"prompt {index // settings.n + 1} of {len(prompts)}: " if len(prompts) > 1 else ""
            raise RequestError(f"{where}{problem}")
        texts.append(Text(index, index // settings.n, growing))
    return texts


def as_json_number(logprob: float | None) -> float | None:
    """A log-probability, which may be -inf."""
    return None if logprob is None else max(logprob, _LEAST_LOGPROB)
