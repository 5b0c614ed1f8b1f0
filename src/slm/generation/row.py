"""A text under way: what decides its next token is its own, whatever is written beside it."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from slm.generation.config import GenerationConfig
from slm.generation.graphed_step import sent
from slm.generation.request import Reason, Token
from slm.generation.sampling import adjusted, drawing_key, likeliest, next_tokens

_DRAWN_TOGETHER = 64


@dataclass(eq=False)
class Row:
    """Of the request at `index`."""

    index: int
    prompt: list[int]
    n_new: int
    at_end: Reason
    settings: GenerationConfig
    seed: int | None = None
    alternatives: int = 0
    prompt_logprobs: bool = False
    text: list[int] = field(default_factory=list)
    ended: Reason | None = None
    last: Token | None = None  # the end of text, if it came and is told of
    _generator: torch.Generator | None = None
    _uniforms: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.drawing = drawing_key(self.settings)

    @property
    def room(self) -> int:
        """Positions that it needs in all: the last new token is never read."""
        return len(self.prompt) + max(1, self.n_new) - 1

    def uniform(self) -> float:
        """In [0, 1): it decides the next token. Some are drawn at a time, budgets may be far too large."""
        if self._generator is None:
            self._generator = torch.Generator().manual_seed(secrets.randbits(63) if self.seed is None else self.seed)
        if len(self.text) == len(self._uniforms):
            self._uniforms += torch.rand(_DRAWN_TOGETHER, generator=self._generator).tolist()
        return self._uniforms[len(self.text)]

    def take(self, token: Token, ends: frozenset[int]) -> Token | None:
        """The token if it is one of the text's; one of `ends` is none where the settings end a text there."""
        if self.settings.stop_at_eos and token.token_id in ends:
            self.ended = "eos"
            self.last = token if self.settings.logprobs else None
            return None
        self.text.append(token.token_id)
        if len(self.text) == self.n_new:
            self.ended = self.at_end
        return token


def uniforms(rows: Sequence[Row]) -> list[float]:
    """A number for each row, or none where all take the likeliest token."""
    if all(row.settings.greedy for row in rows):
        return []
    return [0.0 if row.settings.greedy else row.uniform() for row in rows]


def drawn(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """(B, V) logits of the rows to their next tokens (B,), those that are drawn alike together."""
    alike: dict[object, list[int]] = {}
    for place, row in enumerate(rows):
        alike.setdefault(row.drawing, []).append(place)
    if len(alike) == 1:
        return _drawn_alike(logits, rows)
    tokens = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    for places in alike.values():
        where = sent(places, torch.int64, logits.device)
        tokens[where] = _drawn_alike(logits[where], [rows[place] for place in places])
    return tokens


def _drawn_alike(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    settings = rows[0].settings
    logits = adjusted(logits, settings, [row.prompt for row in rows], [row.text for row in rows])
    numbers = uniforms(rows)
    return next_tokens(logits, settings, sent(numbers, torch.float32, logits.device) if numbers else None)


def tokens_of(rows: Sequence[Row], tokens: Tensor, logits: Tensor, vocab_size: int | None) -> list[Token]:
    """The next token of each row, with its log-probability, and alternatives below `vocab_size`, where it asks for
    them."""
    ids: list[int] = tokens.tolist()
    asking = [place for place, row in enumerate(rows) if row.settings.logprobs]
    if not asking:
        return [Token(row.index, token_id) for row, token_id in zip(rows, ids, strict=True)]
    most = max(rows[place].alternatives for place in asking)
    if len(asking) < len(rows):
        where = sent(asking, torch.int64, logits.device)
        logits, tokens = logits[where], tokens[where]
    logprobs, others = likeliest(logits, tokens, most, vocab_size)
    told = dict(zip(asking, zip(logprobs, others, strict=True), strict=True))
    return [
        Token(row.index, token_id, told[place][0], told[place][1][: row.alternatives])
        if place in told
        else Token(row.index, token_id)
        for place, (row, token_id) in enumerate(zip(rows, ids, strict=True))
    ]
