"""What the callbacks of `conf/callbacks` are told. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from slm.schema import Count, NonNegativeFloat, NonNegativeInt, PositiveFloat, Text


@dataclass(frozen=True)
class SampleSettings:
    """Of `SampleText`: what to continue, and the rest as in `GenerationConfig`."""

    prompt: Text
    max_new_tokens: Count
    temperature: PositiveFloat
    top_k: NonNegativeInt
    seed: NonNegativeInt


@dataclass(frozen=True)
class LossWatchSettings:
    """Of `LossWatch`.

    Attributes:
        window: steps, at least two; nothing is said before half of them are made.
        sigmas, factor: how far above the median a loss stands out.
    """

    window: Count = 100
    sigmas: NonNegativeFloat = 6.0
    factor: NonNegativeFloat = 1.2
