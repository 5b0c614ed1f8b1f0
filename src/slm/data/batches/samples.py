"""Conversations to token ids in memory, as a template writes them and a window can hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from slm.chat.message import Message
from slm.chat.renderer import ChatRenderer, Sample
from slm.errors import UserError

TooLong = Literal["drop", "keep_start", "keep_end", "refuse"]
LossOn = Literal["responses", "all"]


class Tokens(NamedTuple):
    """A `Sample` in arrays (n,)."""

    ids: np.ndarray  # int32
    learnt: np.ndarray  # bool
    n_bytes: np.ndarray  # int32

    @classmethod
    def of(cls, sample: Sample) -> Tokens:
        return cls(
            np.array(sample.ids, np.int32), np.array(sample.learnt, np.bool_), np.array(sample.n_bytes, np.int32)
        )

    def part(self, which: slice) -> Tokens:
        return Tokens(*(array[which].copy() for array in self))


@dataclass(frozen=True)
class SampleSet:
    """Samples one after another, nine bytes a token: `ids`, `learnt` and `n_bytes` as `Tokens` has them."""

    ids: np.ndarray
    learnt: np.ndarray
    n_bytes: np.ndarray
    offsets: np.ndarray  # (k + 1,) int64; sample i is ``offsets[i] .. offsets[i + 1]``
    kept: list[int] = field(default_factory=list)  # (k,) which conversation each sample is of
    too_long: int = 0  # conversations longer than a window, dropped or cut
    cut: int = 0  # of these, those that were cut
    without: int = 0  # conversations with nothing to learn in them, or left of them, which were left out

    @classmethod
    def of(cls, samples: Sequence[Tokens], **counts: Any) -> SampleSet:
        empty = Tokens.of(Sample([], [], []))
        offsets = np.cumsum([0, *(len(sample.ids) for sample in samples)], dtype=np.int64)
        ids, learnt, n_bytes = map(np.concatenate, zip(empty, *samples, strict=True))
        return cls(ids, learnt, n_bytes, offsets, **counts)

    def __reduce__(self) -> Any:
        """A loader process that is not forked gets tensors, which torch hands over as shared memory."""
        return _received, tuple(torch.from_numpy(v) if isinstance(v, np.ndarray) else v for v in vars(self).values())

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, sample: int) -> Tokens:
        where = slice(self.offsets[sample], self.offsets[sample + 1])
        return Tokens(self.ids[where], self.learnt[where], self.n_bytes[where])

    @property
    def lengths(self) -> np.ndarray:
        """(k,) positions that each sample takes in a window: one fewer than its tokens, since the last is only
        predicted."""
        return np.diff(self.offsets) - 1

    def text_bytes(self, sample: int) -> int:
        """Bytes of text that a sample's labels stand for: of what is learnt, its first token left out."""
        _, learnt, n_bytes = self[sample]
        return int(n_bytes[1:][learnt[1:]].sum())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all tokens, and of which are learnt."""
        digest = hashlib.sha256()
        for array in (self.ids, self.learnt, self.offsets):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def report(self) -> dict[str, Any]:
        """Counts, plain types."""
        return {
            "samples": len(self),
            "tokens": len(self.ids),
            "learnt_tokens": int(self.learnt.sum() - self.learnt[self.offsets[:-1]].sum()),  # no label holds the first
            "too_long_dropped": self.too_long - self.cut,
            "too_long_cut": self.cut,
            "nothing_to_learn": self.without,
        }


def _received(*values: Any) -> SampleSet:
    fields: list[Any] = [value.numpy() if isinstance(value, Tensor) else value for value in values]
    return SampleSet(*fields)


def make_samples(
    conversations: Iterable[Sequence[Message]], renderer: ChatRenderer, seq_len: int, too_long: TooLong, loss_on: LossOn
) -> SampleSet:
    """Render, cut to what a window of `seq_len` can hold, and put together.

    Args:
        conversations: each with at least one response.
        renderer: of the template.
        seq_len: window length T; a sample has at most T + 1 tokens.
        too_long: what becomes of longer ones.
        loss_on: learn the responses alone, or all.

    Raises:
        UserError: a conversation cannot be rendered, or is too long and that is refused.
    """
    part = slice(-(seq_len + 1), None) if too_long == "keep_end" else slice(seq_len + 1)
    found: list[Tokens] = []
    kept: list[int] = []
    n_long = n_cut = n_without = 0
    for number, messages in enumerate(conversations):
        sample = _trimmed(Tokens.of(renderer.sample(messages)), loss_on)
        is_long = len(sample.ids) > seq_len + 1
        n_long += is_long
        if is_long and too_long == "refuse":
            raise UserError(
                f"data: conversation {number + 1} has {len(sample.ids):,} tokens, a window {seq_len + 1:,}; raise "
                "data.seq_len (and model.params.max_seq_len), or set task.too_long to drop, keep_start or keep_end"
            )
        if is_long and too_long == "drop":
            continue
        sample = sample.part(part)
        if not sample.learnt[1:].any():
            n_without += 1
            continue
        n_cut += is_long
        kept.append(number)
        found.append(sample)
    return SampleSet.of(found, kept=kept, too_long=n_long, cut=n_cut, without=n_without)


def _trimmed(sample: Tokens, loss_on: LossOn) -> Tokens:
    """Without what stands behind the last response, which nothing is learnt from."""
    trimmed = sample.part(slice(np.flatnonzero(sample.learnt)[-1] + 1))
    return trimmed._replace(learnt=np.ones_like(trimmed.learnt)) if loss_on == "all" else trimmed
