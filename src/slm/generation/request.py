"""What an engine is asked for, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from slm.generation.config import GenerationConfig

Reason = Literal["eos", "length", "max_seq_len", "stop", "refused"]
Alternatives: TypeAlias = tuple[tuple[int, float], ...]
"""Token ids with their log-probabilities, the likeliest first."""


@dataclass(frozen=True)
class Request:
    """One text to write; an empty prompt stands for the beginning of a text, no seed for any. With no new tokens the
    prompt is only read."""

    prompt_ids: Sequence[int]
    max_new_tokens: int
    seed: int | None = None
    refusal: str | None = None  # why it could not be read
    settings: GenerationConfig | None = None  # None: the engine's
    alternatives: int = 0  # so many of the likeliest tokens are told beside each, where log-probabilities are
    prompt_logprobs: bool = False  # tell those of the prompt's tokens, too


@dataclass(frozen=True)
class Token:
    """A token that came, of the request at `index`, with its log-probability, in nats, if asked for."""

    index: int
    token_id: int
    logprob: float | None = None
    alternatives: Alternatives = ()


@dataclass(frozen=True)
class PromptRead:
    """What the model finds of the tokens of a prompt, each by those before it; of the first it can say nothing."""

    index: int
    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    alternatives: tuple[Alternatives, ...]


@dataclass(frozen=True)
class End:
    """A text that ended: at ``eos``, its ``length``, the model's ``max_seq_len``, by ``stop``; or was ``refused``."""

    index: int
    reason: Reason
    token: Token | None = field(
        default=None, compare=False
    )  # that ended it at ``eos``, where log-probabilities are told


Event: TypeAlias = Token | PromptRead | End
