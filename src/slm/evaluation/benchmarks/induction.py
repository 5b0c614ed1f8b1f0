"""Induction: random tokens come a second time, and only their first time tells of them (Olsson et al. 2022)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from slm.errors import UserError
from slm.evaluation.benchmark_config import BenchmarkConfig, InductionSettings
from slm.evaluation.benchmarks.findings import Findings, mean, standard_error
from slm.evaluation.reader import Reader
from slm.scoring.token_scores import ScoreRequest


@dataclass(frozen=True)
class Induction:
    """Sequences of `length` tokens, drawn alike from all that are not special, and the same again, after the beginning
    of a text. ``score`` is the loss of the first half less that of the second, its first token aside, which nothing
    foretells, in nats a token; ``accuracy`` how often the second half's token is the likeliest."""

    settings: InductionSettings
    sequences: int

    def __call__(self, reader: Reader) -> Findings:
        n = self.settings.length
        if n < 2 or 2 * n > reader.longest:
            most = reader.longest // 2
            raise UserError(f"induction.length must be 2 to {most}: the model reads {reader.longest} tokens; got {n}")
        draw, drawable = random.Random(self.settings.seed), self._drawable(reader)
        begin = [reader.spelled.begin_id]
        halves = [draw.choices(drawable, k=n) for _ in range(self.sequences)]
        scores = reader.scores([ScoreRequest(begin, [*half, *half]) for half in halves])
        first = [-mean(one.logprobs[1:n]) for one in scores]
        second = [-mean(one.logprobs[n + 1 :]) for one in scores]
        changes = [a - b for a, b in zip(first, second, strict=True)]
        figures = {
            "score": mean(changes),
            "accuracy": mean([mean(list(map(float, one.greedy[n + 1 :]))) for one in scores]),
            "loss_first": mean(first),
            "loss_second": mean(second),
        }
        about = {"length": n, "sequences": len(halves), "standard_error": standard_error(changes)}
        return Findings(figures, about)

    def _drawable(self, reader: Reader) -> list[int]:
        tokenizer = reader.tokenizer
        try:
            special = set(tokenizer.special_tokens.values())
        except UserError:  # a kind that cannot say which they are
            special = set()
        special |= {*tokenizer.end_ids, *tokenizer.begin_ids}
        return [token for token in range(tokenizer.vocab_size) if token not in special]


def induction(config: BenchmarkConfig) -> Induction:
    """As the settings say; a limit is of the sequences."""
    return Induction(config.induction, config.taken(config.induction.sequences))
