"""Pairs of answers as tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from slm.chat.pair_records import Pair
from slm.chat.renderer import ChatRenderer

TooLong = Literal["drop", "cut_prompt"]
"""What becomes of a pair that a window does not hold: it is left out, or its prompt loses its beginning."""


@dataclass(frozen=True)
class AnswerTokens:
    """A conversation whose last answer counts.

    Attributes:
        ids: (n,) int32, all of it.
        start, end: the answer is ``ids[start:end]``, with what ends it.
    """

    ids: np.ndarray
    start: int
    end: int

    def without_beginning(self, n: int) -> AnswerTokens:
        """The same without its first `n` tokens."""
        return AnswerTokens(self.ids[n:], self.start - n, self.end - n)


@dataclass(frozen=True)
class PairTokens:
    """The two answers of a pair, each after its prompt."""

    chosen: AnswerTokens
    rejected: AnswerTokens

    @property
    def length(self) -> int:
        """Of the longer one."""
        return max(len(self.chosen.ids), len(self.rejected.ids))


def tokenized(pair: Pair, renderer: ChatRenderer) -> PairTokens:
    """Both conversations by the template of `renderer`."""
    return PairTokens(_tokens(pair, pair.chosen, renderer), _tokens(pair, pair.rejected, renderer))


def fitted(pair: PairTokens, longest: int, policy: TooLong) -> PairTokens | None:
    """The pair in at most `longest` tokens a conversation; None where the policy, or its answers, forbid it.

    Both prompts lose as many tokens, so that the answers still follow the same one.
    """
    surplus = pair.length - longest
    if surplus <= 0:
        return pair
    if policy == "drop" or surplus >= min(pair.chosen.start, pair.rejected.start):
        return None
    return PairTokens(pair.chosen.without_beginning(surplus), pair.rejected.without_beginning(surplus))


def fingerprint(pairs: Sequence[PairTokens]) -> str:
    """Of the content: it changes when any token of any pair does, or their order."""
    digest = hashlib.sha256()
    for pair in pairs:
        for answer in (pair.chosen, pair.rejected):
            digest.update(np.array([len(answer.ids), answer.start, answer.end], dtype=np.int64).tobytes())
            digest.update(answer.ids.tobytes())
    return digest.hexdigest()[:16]


def _tokens(pair: Pair, answer: str, renderer: ChatRenderer) -> AnswerTokens:
    sample = renderer.sample([*pair.prompt, {"role": "assistant", "content": answer}])
    end = len(sample.learnt) - sample.learnt[::-1].index(True)
    start = end
    while start and sample.learnt[start - 1]:  # earlier answers of the conversation do not count
        start -= 1
    return AnswerTokens(np.array(sample.ids, dtype=np.int32), start, end)
