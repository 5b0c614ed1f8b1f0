"""How to continue a prompt, as `conf/generation/*.yaml` says it. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import Strict

from slm.schema import FORBID_EXTRA, Count, Flag, Fraction, NonNegativeInt, PositiveFloat, Text, checked
from slm.weights.own_sampling import OwnSampling

_TokenId = Annotated[int, Ge(0)]  # not strict: a key that is typed on the command line is a text
_Penalty = Annotated[float, Strict(), Ge(-10), Le(10)]


@dataclass(frozen=True)
class GenerationConfig:
    """Settings of a continuation, all of them; `settled` makes them of what was asked for and of a model's own.

    Attributes:
        greedy: take the likeliest token each time; temperature, top_k, top_p, min_p and seed then change nothing.
        temperature: logits are divided by it; below 1 safer, above 1 wilder.
        top_k: sample among the k likeliest tokens only; 0 for all.
        top_p: sample among the fewest tokens whose probabilities reach p (nucleus); 1 for all.
        min_p: sample among tokens at least this share as likely as the likeliest (Nguyen et al. 2024); 0 for all.
        repetition_penalty: logits of tokens in prompt or text are divided by it if positive, else multiplied
            (Keskar et al. 2019); 1 for none.
        presence_penalty: taken off the logits of tokens that the text has.
        frequency_penalty: taken off their logits once for each time.
        no_repeat_ngram: no run of this many tokens comes twice in prompt and text; 0 for no such rule.
        logit_bias: added to the logits of these token ids; ``-inf`` forbids one.
        stop: the text ends before any of these strings, also where one begins inside a token.
        seed: of the sampling; None for another text each time. Sample j of a prompt has ``seed + j``.
        logprobs: give each token's log-probability (nats, of the model itself, before any setting here).
        overflow: at the model's ``max_seq_len``, ``stop``; or ``slide``: forget the older half and go on (models
            with rotary or no positions).
        batch_size: texts written side by side, of a file of prompts.
        chat: a prompt is a message, to be answered in the model's chat template; ``auto``: where it has one.
        quantize: ``int8`` or ``int4`` weights, made when the model is loaded; None for the weights as they are.
    """

    __pydantic_config__ = FORBID_EXTRA
    max_new_tokens: Count = 256
    greedy: Flag = False
    temperature: PositiveFloat = 0.8
    top_k: NonNegativeInt = 50
    top_p: Fraction = 1.0
    min_p: Fraction = 0.0
    repetition_penalty: PositiveFloat = 1.0
    presence_penalty: _Penalty = 0.0
    frequency_penalty: _Penalty = 0.0
    no_repeat_ngram: NonNegativeInt = 0
    logit_bias: dict[_TokenId, float] = field(default_factory=dict)
    stop: list[Text] = field(default_factory=list)
    seed: NonNegativeInt | None = None
    n: Count = 1
    logprobs: Flag = False
    stop_at_eos: Flag = True
    overflow: Literal["stop", "slide"] = "stop"
    batch_size: Count = 16
    quantize: Literal["int8", "int4"] | None = None
    chat: Literal["auto", True, False] = "auto"

    def __post_init__(self) -> None:
        if self.top_p == 0:
            raise ValueError("top_p must be above 0 and at most 1; for the likeliest token alone, greedy=true")
        for token, bias in self.logit_bias.items():
            if math.isnan(bias) or bias == math.inf:
                raise ValueError(f"logit_bias of token {token} is {bias}; give a number, or -inf to forbid the token")
        if "" in self.stop:
            raise ValueError("stop holds an empty string, which would end every text at once; leave it out")


_DRAWING = ("temperature", "top_k", "top_p", "min_p")


def settled(asked: Mapping[str, Any], own: Mapping[str, Any], where: str = "") -> GenerationConfig:
    """What was asked for; where that is nothing (None) the model's `own`, and where that has nothing the defaults.

    A model that is greedy of its own is not where somebody asks how to draw.

    Raises:
        UserError: a setting is unknown or out of range.
    """
    of_makers = OwnSampling.__dataclass_fields__
    typed = {name: value for name, value in asked.items() if value is not None or name not in of_makers}
    draws = any(name in typed for name in _DRAWING)
    of_model = {name: value for name, value in own.items() if not (name == "greedy" and draws)}
    return checked(GenerationConfig, {**of_model, **typed}, where)
