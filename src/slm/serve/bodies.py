"""What may be asked, with types and ranges: OpenAI's fields, and those that vLLM and llama.cpp have beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import ConfigDict, Field, Strict
from typing_extensions import Required, TypedDict

from slm.schema import FORBID_EXTRA, Flag, Fraction, PositiveFloat, Text

_MOST = 2**63 - 1
_Id = Annotated[int, Strict(), Ge(0), Le(_MOST)]
_Ids = Annotated[list[_Id], MinLen(1)]
_Penalty = Annotated[float, Strict(), Ge(-10), Le(10)]
_Bias = Annotated[float, Strict(), Ge(-100), Le(100)]
_Budget = Annotated[int, Strict(), Ge(0), Le(_MOST)]
_Stop = Annotated[str, Strict(), MinLen(1), MaxLen(1000)]


@dataclass(frozen=True)
class StreamOptions:
    """Of a stream."""

    __pydantic_config__ = FORBID_EXTRA
    include_usage: Flag | None = None  # a last chunk with counts of tokens
    include_obfuscation: Flag | None = None  # without effect


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What every text can be asked for with; what is null or left out is as the server was started."""

    __pydantic_config__ = FORBID_EXTRA
    model: Text | None = None  # null: the only one
    temperature: Annotated[float, Strict(), Ge(0), Le(1000)] | None = None  # 0: the likeliest token each time
    top_p: Annotated[float, Strict(), Gt(0), Le(1)] | None = None
    top_k: Annotated[int, Strict(), Ge(-1), Le(_MOST)] | None = None  # 0 or -1: all
    min_p: Fraction | None = None
    repetition_penalty: PositiveFloat | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: dict[Annotated[str, Field(pattern=r"^[0-9]{1,18}$")], _Bias] | None = None
    stop: _Stop | Annotated[list[_Stop], MaxLen(16)] | None = None
    seed: Annotated[int, Strict(), Ge(-(2**63)), Le(_MOST)] | None = None
    n: Annotated[int, Strict(), Ge(1), Le(128)] | None = None
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: Flag | None = None  # go on behind an end of text
    # these say who asks, or how a service is to treat it, and have no effect here
    user: Text | None = None
    store: Flag | None = None
    metadata: dict[str, Any] | None = None
    service_tier: Text | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None

    def sampling(self) -> dict[str, Any]:
        """What of it are settings of a `GenerationConfig`."""
        names = ("top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
        asked: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.temperature is not None:
            asked |= {"greedy": True} if self.temperature == 0 else {"greedy": False, "temperature": self.temperature}
        if self.top_k is not None:
            asked["top_k"] = max(0, self.top_k)
        if self.logit_bias is not None:
            asked["logit_bias"] = {int(token_id): bias for token_id, bias in self.logit_bias.items()}
        if self.stop is not None:
            asked["stop"] = [self.stop] if isinstance(self.stop, str) else self.stop
        if self.seed is not None:
            asked["seed"] = self.seed % 2**63
        if self.ignore_eos is not None:
            asked["stop_at_eos"] = not self.ignore_eos
        return {name: value for name, value in asked.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class CompletionAsked(Asked):
    """A text to go on with."""

    prompt: Text | _Ids | Annotated[list[Text], MinLen(1)] | Annotated[list[_Ids], MinLen(1)]
    max_tokens: _Budget | None = None  # 0: the prompt is only read
    echo: Flag | None = None  # the answer begins with the prompt
    logprobs: Annotated[int, Strict(), Ge(0), Le(20)] | None = None  # of each token, and of so many likeliest ones
    best_of: Annotated[int, Strict(), Ge(1), Le(128)] | None = None  # as `n`, if anything
    suffix: Literal[""] | None = None  # no model here writes into a gap


class TextPart(TypedDict):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class MessageAsked(TypedDict, total=False):
    """A message; what else it has is the chat template's to read."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    role: Required[Annotated[str, Strict(), MinLen(1)]]
    content: Text | list[TextPart] | None
    name: Text | None
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: Text | None


class TextFormat(TypedDict):
    """The one form of answers."""

    type: Literal["text"]


@dataclass(frozen=True, kw_only=True)
class ChatAsked(Asked):
    """Messages to answer."""

    messages: Annotated[list[MessageAsked], MinLen(1)]
    max_completion_tokens: _Budget | None = None
    max_tokens: _Budget | None = None  # its old name
    logprobs: Flag | None = None
    top_logprobs: Annotated[int, Strict(), Ge(0), Le(20)] | None = None  # needs `logprobs`
    tools: list[dict[str, Any]] | None = None  # described to the model by its chat template
    tool_choice: Literal["auto", "none"] | None = None  # none: they are not described
    parallel_tool_calls: Flag | None = None  # without effect
    response_format: TextFormat | None = None
    chat_template_kwargs: dict[str, Any] | None = None  # for the chat template
    reasoning_effort: Text | None = None  # without effect


@dataclass(frozen=True, kw_only=True)
class TokenizeAsked:
    """A text to encode (as vLLM's server has it)."""

    __pydantic_config__ = FORBID_EXTRA
    prompt: Text
    model: Text | None = None
    add_special_tokens: Flag | None = None  # what begins a text, in front; null: yes


@dataclass(frozen=True, kw_only=True)
class DetokenizeAsked:
    """Ids to decode."""

    __pydantic_config__ = FORBID_EXTRA
    tokens: list[_Id]
    model: Text | None = None
