"""A model as benchmarks use it: it scores ids and writes texts. And one that only counts what that would take."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from slm.generation.config import GenerationConfig
from slm.generation.language_model import LanguageModel
from slm.scoring.spelling import SpelledTexts
from slm.scoring.token_scores import ScoreRequest, TokenScores, token_scores
from slm.scoring.token_tree import trees_of
from slm.scoring.windows import fitting
from slm.tokenizers.base import Tokenizer


@dataclass
class Reader:
    """What a benchmark may ask of a model."""

    model: LanguageModel
    batch_size: int

    @property
    def tokenizer(self) -> Tokenizer:
        return self.model.tokenizer

    @property
    def longest(self) -> int:
        """Positions that the model has."""
        return self.model.model.config.params.max_seq_len

    @functools.cached_property
    def spelled(self) -> SpelledTexts:
        """How texts become ids."""
        return SpelledTexts(self.tokenizer)

    def scores(self, requests: Sequence[ScoreRequest], top: int = 0) -> list[TokenScores]:
        """Of each request, in their order."""
        return token_scores(self.model.model, requests, self.batch_size, top)

    def written(self, prompts: Sequence[Sequence[int]], settings: GenerationConfig) -> list[str]:
        """The text that the model writes after each prompt."""
        return [one.text for one in self.model.complete_ids(prompts, settings)]


@dataclass
class CountingReader(Reader):
    """Reads nothing: it counts the tokens that a forward pass would take, and gives figures that mean nothing."""

    tokens: int = field(default=0, init=False)

    def scores(self, requests: Sequence[ScoreRequest], top: int = 0) -> list[TokenScores]:
        windows = [window for request in requests for window in fitting(*request, self.longest)]
        sequences = [[*context, *continuation][:-1] for context, continuation in windows]
        self.tokens += sum(len(tree.ids) for tree in trees_of(sequences))
        return [self._nothing(len(request.continuation), top) for request in requests]

    def written(self, prompts: Sequence[Sequence[int]], settings: GenerationConfig) -> list[str]:
        self.tokens += sum(len(prompt) + settings.max_new_tokens for prompt in prompts)
        return [""] * len(prompts)

    def _nothing(self, n: int, top: int) -> TokenScores:
        return TokenScores([-1.0] * n, [False] * n, [[(0, -1.0)] * top] * n)
