"""How to continue a prompt, as `conf/generation/*.yaml` says it. Imports no torch."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Le
from pydantic import Strict

from slm.chat.records import Message
from slm.errors import UserError
from slm.schema import FORBID_EXTRA, Count, Flag, Fraction, NonNegativeInt, PositiveFloat, Text, checked
from slm.weights.own_sampling import OwnSampling

_TokenId = Annotated[int, Ge(0)]  # not strict: a key that is typed on the command line is a text
_Penalty = Annotated[float, Strict(), Ge(-10), Le(10)]


@dataclass(frozen=True)
class GenerationConfig:
    """Settings of a continuation, all of them; `settled` makes them of what was asked for and of a model's own."""

    __pydantic_config__ = FORBID_EXTRA
    max_new_tokens: Count = 256
    greedy: Flag = False  # take the likeliest token each time; the next four and the seed then change nothing
    temperature: PositiveFloat = 0.8  # logits are divided by it; below 1 safer, above 1 wilder
    top_k: NonNegativeInt = 50  # sample among so many of the likeliest tokens only; 0 for all
    top_p: Fraction = 1.0  # among the fewest whose probabilities reach it (nucleus); 1 for all
    min_p: Fraction = 0.0  # among those at least this share as likely as the likeliest (Nguyen et al. 2024)
    # logits of tokens in prompt or text are divided by it if positive, else multiplied (Keskar et al. 2019)
    repetition_penalty: PositiveFloat = 1.0
    presence_penalty: _Penalty = 0.0  # taken off the logits of tokens that the text has
    frequency_penalty: _Penalty = 0.0  # taken off their logits once for each time
    no_repeat_ngram: NonNegativeInt = 0  # no run of this many tokens comes twice in prompt and text; 0: no such rule
    logit_bias: dict[_TokenId, float] = field(default_factory=dict)  # added to logits; -inf forbids a token
    stop: list[Text] = field(default_factory=list)  # the text ends before any of these, also inside a token
    seed: NonNegativeInt | None = None  # of the sampling, sample j having seed + j; None: another text each time
    n: Count = 1  # samples of each prompt
    logprobs: Flag = False  # give each token's, in nats, of the model itself, before any setting here
    alternatives: NonNegativeInt = 0  # and those of so many of the likeliest tokens beside it
    stop_at_eos: Flag = True
    # at `max_seq_len`, or forget the older half there and go on (models with rotary or no positions)
    overflow: Literal["stop", "slide"] = "stop"
    batch_size: Count = 16  # texts written side by side, of a file of prompts
    quantize: Literal["int8", "int4"] | None = None  # weights, made when the model is loaded; None: as they are
    # a prompt is a message, to be answered in the model's chat template; auto: where it has one
    chat: Literal["auto", True, False] = "auto"
    system: Text | None = None  # what the model is told ahead of a conversation that does not begin with such a message
    template_args: dict[Text, Any] | None = None  # for the chat template, over what it had in training

    def __post_init__(self) -> None:
        if self.top_p == 0:
            raise ValueError("top_p must be above 0 and at most 1; for the likeliest token alone, greedy=true")
        for token, bias in self.logit_bias.items():
            if math.isnan(bias) or bias == math.inf:
                raise ValueError(f"logit_bias of token {token} is {bias}; give a number, or -inf to forbid the token")
        if "" in self.stop:
            raise ValueError("stop holds an empty string, which would end every text at once; leave it out")
        if self.chat is False and self.system is not None:
            raise ValueError("system is told in a conversation, and chat is false; leave one of them out")


@dataclass(frozen=True)
class Prompt:
    """A text to continue, which may be empty, or messages to answer, or ids, with what is its own; of what is None the
    settings decide."""

    text: str = ""
    messages: list[dict[str, Any]] | None = None  # ``role``, ``content``, and what else a template reads
    tools: list[dict[str, Any]] | None = None  # described to the model with the messages
    ids: list[int] | None = None  # taken as they are
    system: Text | None = None
    max_new_tokens: Count | None = None
    seed: NonNegativeInt | None = None
    line: Count | None = None  # where it stands in a file of prompts

    @classmethod
    def of(cls, prompt: Asked) -> Prompt:
        """`UserError` for what is neither a text, nor a list of ids or of messages."""
        if isinstance(prompt, Prompt):
            return prompt
        if isinstance(prompt, str):
            return cls(prompt)
        given: list[Any] = list(prompt)
        if given and all(isinstance(one, Mapping) for one in given):
            return cls(messages=[dict(one) for one in given])
        try:
            return cls(ids=[operator.index(one) for one in given])
        except TypeError:
            wanted = "a prompt is a text, a list of ids or a list of messages (role, content)"
            raise UserError(f"{wanted}; got {str(given)[:60]}") from None


Asked: TypeAlias = str | Sequence[int] | Sequence[Message] | Prompt


def settled(asked: Mapping[str, Any], own: Mapping[str, Any], where: str = "") -> GenerationConfig:
    """What was asked for; where that is nothing (None) the model's `own`, and where that has nothing the defaults. A
    model that is greedy of its own is not where somebody asks how to draw. Raises `UserError` where a setting is
    unknown or out of range."""
    of_makers = OwnSampling.__dataclass_fields__
    typed = {name: value for name, value in asked.items() if value is not None or name not in of_makers}
    draws = not typed.keys().isdisjoint(("temperature", "top_k", "top_p", "min_p"))
    of_model = {name: value for name, value in own.items() if not (name == "greedy" and draws)}
    return checked(GenerationConfig, {**of_model, **typed}, where)
