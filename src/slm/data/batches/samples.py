"""Conversations to token ids in memory, as a template writes them and a window can hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch

from slm.chat.renderer import ChatRenderer, Message, Sample
from slm.errors import UserError

TooLong = Literal["drop", "keep_start", "keep_end", "refuse"]
LossOn = Literal["responses", "all"]


@dataclass(frozen=True)
class SampleSet:
    """Samples one after another, nine bytes a token.

    Attributes:
        ids: (n,) int32, all tokens.
        learnt: (n,) bool, those to be learnt.
        offsets: (k + 1,) int64; sample i is ``offsets[i] .. offsets[i + 1]``.
        kept: (k,) which conversation each sample is of.
        too_long: conversations longer than a window, dropped or cut.
        cut: of these, those that were cut.
        without: conversations that were left out since nothing to learn is in them, or was left of them.
        n_bytes: (n,) int32, bytes of text that each token stands for.
    """

    ids: np.ndarray
    learnt: np.ndarray
    offsets: np.ndarray
    kept: list[int]
    too_long: int
    cut: int
    without: int
    n_bytes: np.ndarray

    def __reduce__(self) -> Any:
        """A loader process that is not forked gets tensors, which torch hands over as shared memory."""
        arrays = [torch.from_numpy(getattr(self, name)) for name in _ARRAYS]
        others = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _ARRAYS}
        return _received, (arrays, others)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(k,) positions that each sample takes in a window: one fewer than its tokens, since the last is only
        predicted."""
        return np.diff(self.offsets) - 1

    def text_bytes(self, sample: int) -> int:
        """Bytes of text that a sample's labels stand for: of what is learnt, its first token left out."""
        labels = slice(self.offsets[sample] + 1, self.offsets[sample + 1])
        return int(self.n_bytes[labels][self.learnt[labels]].sum())

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


_ARRAYS = ("ids", "learnt", "offsets", "n_bytes")


def _received(arrays: Sequence[torch.Tensor], others: dict[str, Any]) -> SampleSet:
    named: dict[str, Any] = dict(zip(_ARRAYS, (array.numpy() for array in arrays), strict=True))
    return SampleSet(**named, **others)


def make_samples(
    conversations: Iterable[Sequence[Message]], renderer: ChatRenderer, seq_len: int, too_long: TooLong, loss_on: LossOn
) -> SampleSet:
    """Render, cut to what a window of `seq_len` can hold, and put together.

    Args:
        conversations: each with at least one response.
        renderer: of the template.
        seq_len: window length T; a sample has at most T + 1 tokens.
        too_long: what becomes of longer ones: ``drop``, keep the tokens at their start or end, or ``refuse``.
        loss_on: learn the ``responses`` alone, or ``all``.

    Raises:
        UserError: a conversation cannot be rendered, or is too long and that is refused.
    """
    ids: list[np.ndarray] = []
    learnt: list[np.ndarray] = []
    n_bytes: list[np.ndarray] = []
    kept: list[int] = []
    n_long = n_cut = n_without = 0
    for number, messages in enumerate(conversations):
        sample = _trimmed(renderer.sample(messages), loss_on)
        fits = len(sample.ids) <= seq_len + 1
        n_long += not fits
        if not fits and too_long == "refuse":
            raise UserError(
                f"data: conversation {number + 1} has {len(sample.ids):,} tokens, a window {seq_len + 1:,}; raise "
                "data.seq_len (and model.params.max_seq_len), or set task.too_long to drop, keep_start or keep_end"
            )
        if not fits and too_long == "drop":
            continue
        part = slice(-(seq_len + 1), None) if too_long == "keep_end" else slice(seq_len + 1)
        if not any(sample.learnt[part][1:]):
            n_without += 1
            continue
        n_cut += not fits
        kept.append(number)
        ids.append(np.array(sample.ids[part], dtype=np.int32))
        learnt.append(np.array(sample.learnt[part], dtype=np.bool_))
        n_bytes.append(np.array(sample.n_bytes[part], dtype=np.int32))
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    empty = np.empty(0)
    return SampleSet(
        np.concatenate(ids) if ids else empty.astype(np.int32),
        np.concatenate(learnt) if learnt else empty.astype(np.bool_),
        offsets,
        kept,
        n_long,
        n_cut,
        n_without,
        np.concatenate(n_bytes) if n_bytes else empty.astype(np.int32),
    )


def _trimmed(sample: Sample, loss_on: LossOn) -> Sample:
    """Without what stands behind the last response, which nothing is learnt from."""
    end = max(i for i, learnt in enumerate(sample.learnt) if learnt) + 1
    learnt = [True] * end if loss_on == "all" else sample.learnt[:end]
    return Sample(sample.ids[:end], learnt, sample.n_bytes[:end])
