"""What is answered, in OpenAI's shapes."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict

Finish = Literal["stop", "length"]


class Usage(TypedDict):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(TypedDict):
    """A list entry for each token; the first of a text, of which nothing is known, has null."""

    tokens: list[str]
    token_logprobs: list[float | None]  # nats
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]  # characters


class CompletionChoice(TypedDict):
    """One text."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None
    finish_reason: Finish | None


class Completion(TypedDict):
    """All of them, or of a stream what is new."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: NotRequired[Usage | None]


class TopLogprob(TypedDict):
    """A token that might have come."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """A token that came."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Of each token of an answer."""

    content: list[TokenLogprob]


class ChatMessage(TypedDict):
    """An answer, which goes on with a conversation."""

    role: Literal["assistant"]
    content: str


class ChatChoice(TypedDict):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class Chat(TypedDict):
    """All of them."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ModelFacts(TypedDict):
    """What is known of a model beside its name."""

    chat: bool  # it answers messages
    max_len: int  # tokens of a prompt and its text
    sampling: dict[str, Any]  # what a request that says nothing gets


class Model(TypedDict):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    slm: ModelFacts


class Models(TypedDict):
    """All of them."""

    object: Literal["list"]
    data: list[Model]


class Health(TypedDict):
    """That it answers at all."""

    status: Literal["ok"]
    running: int  # texts that are written
    waiting: int


class Tokenized(TypedDict):
    """A text's ids."""

    tokens: list[int]
    count: int
    max_model_len: int


class Detokenized(TypedDict):
    """The text of ids."""

    prompt: str


class TokenizerInfo(TypedDict):
    """What a client needs who encodes by `/tokenize` (as vLLM's server has it)."""

    tokenizer_class: str
    vocab_size: int
    eos_token: str | None
    bos_token: str | None
    pad_token: str | None
    chat_template: str | None


class ErrorFacts(TypedDict):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(TypedDict):
    """In place of an answer."""

    error: ErrorFacts
