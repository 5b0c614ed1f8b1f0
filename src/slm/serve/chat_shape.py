"""`/v1/chat/completions`: answers to conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from slm.chat.records import Message, RecordError, messages_in
from slm.generation.config import Prompt
from slm.generation.request import Token
from slm.serve.answers import ChatChoice, ChatLogprobs, TokenLogprob, TopLogprob
from slm.serve.bodies import ChatAsked
from slm.serve.jobs import Text
from slm.serve.request_error import RequestError
from slm.serve.served import Served
from slm.serve.shape import Shape, as_json_number, texts_of


class ChatShape(Shape):
    """Of one request."""

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    id_prefix = "chatcmpl"

    def __init__(self, asked: ChatAsked, served: Served) -> None:
        if not served.chats:
            raise RequestError(
                f"the model '{served.name}' has no chat template; ask /v1/completions to go on with a text"
            )
        if asked.top_logprobs is not None and not asked.logprobs:
            raise RequestError("top_logprobs is told beside logprobs; set logprobs too", param="top_logprobs")
        args = asked.chat_template_kwargs
        chats = {"chat": True, **({} if args is None else {"template_args": args})}
        settings = replace(served.settled(asked.sampling() | chats), n=asked.n or 1, logprobs=bool(asked.logprobs))
        tools = asked.tools if asked.tool_choice != "none" else None
        prompt = Prompt(messages=[dict(one) for one in _messages(asked)], tools=tools or None)
        budget = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
        texts = texts_of(served, [prompt], settings, budget, asked.top_logprobs or 0)
        super().__init__(asked, served, settings, texts)

    def choice(self, text: Text) -> ChatChoice:
        assert text.completion is not None, "it has ended"
        told = self._logprobs(text.tokens[: len(text.growing.ids)]) if self.settings.logprobs else None
        return {
            "index": text.index,
            "message": {"role": "assistant", "content": text.completion.text},
            "logprobs": told,
            "finish_reason": self.finish(text),
        }

    def begun(self, text: Text) -> Mapping[str, Any]:
        return _delta(text, {"role": "assistant", "content": ""}, None)

    def news(self, text: Text, piece: str, token: Token) -> Mapping[str, Any] | None:
        if not piece and not self.settings.logprobs:
            return None
        return _delta(text, {"content": piece}, self._logprobs([token]) if self.settings.logprobs else None)

    def ended(self, text: Text, piece: str) -> Mapping[str, Any]:
        return _delta(text, {"content": piece} if piece else {}, None, self.finish(text))

    def _logprobs(self, tokens: Sequence[Token]) -> ChatLogprobs:
        return {"content": list(map(self._logprob, tokens))}

    def _logprob(self, token: Token) -> TokenLogprob:
        tops = [self._named(token_id, logprob) for token_id, logprob in token.alternatives]
        return {**self._named(token.token_id, token.logprob or 0.0), "top_logprobs": tops}

    def _named(self, token_id: int, logprob: float) -> TopLogprob:
        names = self.served.names
        told = cast(float, as_json_number(logprob))
        return {"token": names.name(token_id), "logprob": told, "bytes": list(names.bytes_of(token_id))}


def _messages(asked: ChatAsked) -> list[Message]:
    try:
        return messages_in(list(asked.messages), "messages", {})
    except RecordError as error:
        raise RequestError(f"the request {error}", param="messages") from None


def _delta(
    text: Text, delta: Mapping[str, str], logprobs: ChatLogprobs | None, finish: Any = None
) -> Mapping[str, Any]:
    return {"index": text.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
