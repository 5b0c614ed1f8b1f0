"""Pairs of answers as tokens, and as batches."""

import hashlib
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from slm.chat.preference_forms import Pair
from slm.chat.records import Message, Tools
from slm.chat.renderer import ChatRenderer
from slm.data.batches.samples import SampleSet, SampleWindows, Tokens
from slm.data.batches.windows import Indices, Windows

TooLong = Literal["drop", "cut_prompt"]
"""What becomes of a pair that a window does not hold: it is left out, or its prompt loses its beginning."""


class PairTokens(NamedTuple):
    """The two answers of a pair, each after its prompt; learnt is the answer alone, with what ends it."""

    chosen: Tokens
    rejected: Tokens

    @property
    def length(self) -> int:
        return max(len(answer.ids) for answer in self)


def tokenized(pair: Pair, renderer: ChatRenderer) -> PairTokens:
    """Both conversations by the template of `renderer`."""
    return PairTokens(*(answered(pair.prompt, text, pair.tools, renderer) for text in (pair.chosen, pair.rejected)))


def answered(prompt: Sequence[Message], answer: str, tools: Tools, renderer: ChatRenderer) -> Tokens:
    """A prompt and an answer; earlier answers of the conversation do not count."""
    tokens = Tokens.of(renderer.sample([*prompt, {"role": "assistant", "content": answer}], tools))
    ends = np.flatnonzero(np.diff(tokens.learnt, append=False) & tokens.learnt)  # the last token of each answer
    begin = ends[-2] + 1 if len(ends) > 1 else 0
    return tokens._replace(learnt=tokens.learnt & (np.arange(len(tokens.ids)) >= begin))


def fitted(pair: PairTokens, longest: int, policy: TooLong) -> PairTokens | None:
    """The pair in at most `longest` tokens a conversation; None where the policy, or its answers, forbid it. Both
    prompts lose as many tokens, so that the answers still follow the same one."""
    surplus = pair.length - longest
    if surplus <= 0:
        return pair
    if policy == "drop" or surplus >= min(int(answer.learnt.argmax()) for answer in pair):
        return None
    return PairTokens(*(answer.part(slice(surplus, None)) for answer in pair))


def fingerprint(pairs: Sequence[PairTokens]) -> str:
    """Of the content: it changes when any token of any pair does, or their order."""
    digest = hashlib.sha256()
    for ids, learnt, _ in (answer for pair in pairs for answer in pair):
        start = int(learnt.argmax())
        digest.update(np.array([len(ids), start, start + learnt.sum()], dtype=np.int64).tobytes())
        digest.update(ids.tobytes())
    return digest.hexdigest()[:16]


class PairDataset(Windows):
    """Batches of pairs, the chosen answers first.

    A batch of B pairs has ``input_ids`` and ``labels``, (2 B, T) int64: rows ``0 .. B - 1`` are the chosen answers,
    each after its prompt, rows ``B .. 2 B - 1`` the rejected ones, in the same order, all padded as `SampleWindows`
    are. Labels are -100 but for the answer's tokens. With a `reference`, (n, 2) fp32, its log-probabilities of the
    answers, chosen and rejected, batches have these as ``reference``, (2 B,). No pair is longer than ``seq_len + 1``.
    """

    def __init__(self, pairs: Sequence[PairTokens], seq_len: int, reference: Tensor | None = None) -> None:
        # pair i is samples 2 i and 2 i + 1
        self.rows = SampleWindows(SampleSet.of([answer for pair in pairs for answer in pair]), seq_len)
        self.seq_len = seq_len
        self.reference = reference

    def __len__(self) -> int:
        return len(self.rows) // 2

    @property
    def lengths(self) -> np.ndarray:
        """(n,) positions of each pair's longer answer, its prompt included."""
        return self.rows.samples.lengths.reshape(-1, 2).max(axis=1)

    def reference_told(self) -> str:
        """What the reference thinks of the answers, for people."""
        assert self.reference is not None
        likelier = int((self.reference[:, 0] > self.reference[:, 1]).sum()) / len(self)
        n_tokens = sum(int(self.rows.samples[2 * i].learnt.sum()) for i in range(len(self)))
        nats = math.fsum(self.reference[:, 0].tolist()) / n_tokens
        return f"chosen answers {nats:.4f} nats/token, likelier than the rejected in {100 * likelier:.1f} % of pairs"

    def batch(self, indices: Indices) -> dict[str, Tensor]:
        pairs = np.asarray(indices)
        batch = self.rows.batch(np.concatenate([2 * pairs, 2 * pairs + 1]))
        if self.reference is not None:
            batch["reference"] = self.reference[torch.as_tensor(pairs)].t().flatten()
        return batch
