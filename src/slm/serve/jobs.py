"""A request over HTTP as texts to be written, and what is told of them while they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from slm.generation.completion import Completion, GrowingText
from slm.generation.request import PromptRead, Token


@dataclass(eq=False)
class Text:
    """One text of a request, a choice of its answer. The thread that computes fills it, and gives it up at its end."""

    index: int  # among the choices
    prompt: int  # among the request's prompts
    growing: GrowingText
    tokens: list[Token] = field(default_factory=list)  # where log-probabilities are asked for, with the end of text
    read: PromptRead | None = None
    completion: Completion | None = None

    @property
    def keeps_tokens(self) -> bool:
        settings = self.growing.request.settings
        return settings is not None and settings.logprobs


@dataclass(frozen=True)
class Piece:
    """What became certain of a text with a token; often nothing."""

    text: Text
    piece: str
    token: Token


@dataclass(frozen=True)
class Finished:
    """The rest of a text."""

    text: Text
    piece: str


@dataclass(frozen=True)
class Broken:
    """A fault of ours, which ends the whole request."""

    reason: str


News: TypeAlias = Piece | Finished | Broken


@dataclass(eq=False)
class Job:
    """All texts of a request."""

    model: str
    texts: Sequence[Text]
    streams: bool = False  # is told of each token, not only of ends
    cut: bool = False  # its time is over: what there is is the answer
    left: int = 0  # texts without an end
    on_end: Callable[[], None] = lambda: None
    news: asyncio.Queue[News] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.left = len(self.texts)
