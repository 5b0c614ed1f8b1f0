"""Answers that are good or bad, each by itself, as tokens and as batches; beside each one to another prompt."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from slm.chat.preference_forms import LabelledAnswer
from slm.chat.renderer import ChatRenderer
from slm.data.batches import pairs
from slm.data.batches.pairs import PairDataset, PairTokens, TooLong, answered
from slm.data.batches.samples import Tokens
from slm.data.batches.windows import Indices
from slm.errors import UserError


class AnswerTokens(NamedTuple):
    """An answer after its prompt, and another prompt's answer after the same one; learnt is the answer alone."""

    own: Tokens
    other: Tokens
    is_desirable: bool
    is_cut: bool = False  # the prompt lost its beginning


def answer_tokens(
    given: LabelledAnswer, other: str, renderer: ChatRenderer, longest: int, policy: TooLong
) -> AnswerTokens | None:
    """Both in at most `longest` tokens; None where the policy, or the answer, forbids it. The other answer loses its
    end, for it stands for many."""
    own = answered(given.prompt, given.answer, given.tools, renderer)
    surplus = max(0, len(own.ids) - longest)
    if surplus and (policy == "drop" or surplus >= int(own.learnt.argmax())):
        return None
    beside = answered(given.prompt, other, given.tools, renderer)
    kept = slice(surplus, surplus + longest)
    return AnswerTokens(own.part(kept), beside.part(kept), given.is_desirable, surplus > 0)


def mismatched(prompts: Sequence[bytes]) -> list[int]:
    """For each answer the number of one to another prompt, each once, by the keys of their prompts: grouped by prompt,
    they move on by as many as the largest group has. `UserError` if there is a single prompt."""
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    counts = Counter(prompts)
    if len(counts) == 1:
        raise UserError(
            "data: all answers of a part are to one prompt, and task=kto compares with answers to others; give more "
            "prompts, or a larger data.val_fraction"
        )
    found = [0] * len(order)
    for place, answer in enumerate(order):
        found[answer] = order[(place + max(counts.values())) % len(order)]
    return found


def fingerprint(answers: Sequence[AnswerTokens]) -> str:
    """Of the content, as of pairs, and of the labels."""
    tokens = pairs.fingerprint([PairTokens(one.own, one.other) for one in answers])
    labels = bytes(one.is_desirable for one in answers)
    return hashlib.sha256(tokens.encode() + labels).hexdigest()[:16]


class UnpairedDataset(PairDataset):
    """Batches of answers, (2 B, T) as of pairs: rows ``0 .. B - 1`` are the answers, rows ``B .. 2 B - 1`` those to
    other prompts; ``is_desirable`` is (B,) bool. The `reference` is (n, 2), in the same order."""

    def __init__(self, answers: Sequence[AnswerTokens], seq_len: int, reference: Tensor | None = None) -> None:
        super().__init__([PairTokens(one.own, one.other) for one in answers], seq_len, reference)
        self.is_desirable = torch.tensor([one.is_desirable for one in answers])

    def batch(self, indices: Indices) -> dict[str, Tensor]:
        return {**super().batch(indices), "is_desirable": self.is_desirable[torch.as_tensor(np.asarray(indices))]}

    def reference_told(self) -> str:
        assert self.reference is not None
        told = []
        for name, is_wanted in (("desirable", True), ("undesirable", False)):
            which = (self.is_desirable == is_wanted).nonzero().flatten().tolist()
            n_tokens = sum(int(self.rows.samples[2 * i].learnt.sum()) for i in which)
            if which:
                told.append(f"{name} answers {math.fsum(self.reference[which, 0].tolist()) / n_tokens:.4f} nats/token")
        return ", ".join(told)
