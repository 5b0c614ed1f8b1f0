"""How to continue a prompt, as `conf/generation/*.yaml` says it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from slm.schema import FORBID_EXTRA, Count, Flag, Fraction, NonNegativeInt, PositiveFloat


@dataclass(frozen=True)
class GenerationConfig:
    """Settings of one continuation.

    Attributes:
        max_new_tokens: the most tokens to add.
        greedy: take the likeliest token each time; the settings below then change nothing.
        temperature: logits are divided by it; below 1 safer, above 1 wilder.
        top_k: sample among the k likeliest tokens only; 0 for all.
        top_p: sample among the fewest tokens whose probabilities reach p (nucleus); 1 for all.
        seed: of the sampling; None for another text each time.
        stop_at_eos: end where the model says the text ends.
    """

    __pydantic_config__ = FORBID_EXTRA
    max_new_tokens: Count = 256
    greedy: Flag = False
    temperature: PositiveFloat = 1.0
    top_k: NonNegativeInt = 0
    top_p: Fraction = 1.0
    seed: NonNegativeInt | None = None
    stop_at_eos: Flag = True

    def __post_init__(self) -> None:
        if self.top_p == 0:
            raise ValueError("top_p must be above 0 and at most 1; for the likeliest token alone, greedy=true")
