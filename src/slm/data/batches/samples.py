"""Conversations to token ids in memory, as a template writes them, and these to windows, where labels are shifted."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from slm.chat.records import Message, is_learnt, tools_of
from slm.chat.renderer import ChatRenderer, Sample
from slm.data.batches.windows import IGNORE_INDEX, Indices, Windows
from slm.data.batches.words import WordStarts
from slm.errors import UserError

TooLong = Literal["drop", "keep_start", "keep_end", "refuse"]
LossOn = Literal["responses", "all"]
_LENGTH_MULTIPLE = 8


class Tokens(NamedTuple):
    """A `Sample` in arrays (n,)."""

    ids: np.ndarray  # int32
    learnt: np.ndarray  # bool
    n_bytes: np.ndarray  # int32

    @classmethod
    def of(cls, sample: Sample) -> Tokens:
        return cls(np.array(sample.ids, np.int32), np.array(sample.learnt, bool), np.array(sample.n_bytes, np.int32))

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
    too_long: int = 0  # samples longer than a window, dropped or cut
    cut: int = 0  # of these, those that were cut
    without: int = 0  # samples with nothing to learn in them, or left of them, which were left out

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
        """(k,) positions that each sample takes in a window: one fewer than its tokens, the last is only predicted."""
        return np.diff(self.offsets) - 1

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all tokens, and of which are learnt."""
        digest = hashlib.sha256()
        for array in (self.ids, self.learnt, self.offsets):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def report(self) -> dict[str, Any]:
        return {
            "conversations": len(set(self.kept)),
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
    """Conversations, each with a response or more, rendered and cut to the ``seq_len + 1`` tokens of a window; where
    responses need samples of their own (`ChatRenderer.samples`) these follow one another. `UserError` if one cannot be
    rendered, or is too long and that is refused."""
    part = slice(-(seq_len + 1), None) if too_long == "keep_end" else slice(seq_len + 1)
    found: list[Tokens] = []
    kept: list[int] = []
    n_long = n_cut = n_without = 0
    rendered = (
        (number, sample)
        for number, messages in enumerate(conversations)
        for sample in _rendered(messages, renderer, loss_on)
    )
    for number, whole in rendered:
        if whole is None:
            n_without += 1
            continue
        sample = _trimmed(Tokens.of(whole), loss_on)
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


def _rendered(messages: Sequence[Message], renderer: ChatRenderer, loss_on: LossOn) -> Sequence[Sample | None]:
    """The samples of a conversation; None for one of which nothing is to be learnt."""
    if not any(map(is_learnt, messages)):
        return [None]
    samples = renderer.samples(messages, tools_of(messages))
    return samples[-1:] if loss_on == "all" else samples


def _trimmed(sample: Tokens, loss_on: LossOn) -> Tokens:
    """Without what stands behind the last response, which nothing is learnt from."""
    trimmed = sample.part(slice(np.flatnonzero(sample.learnt)[-1] + 1))
    return trimmed._replace(learnt=np.ones_like(trimmed.learnt)) if loss_on == "all" else trimmed


class SampleWindows(Windows):
    """Windows of whole samples, none of them longer than one; `windows` names the samples of each.

    With a `seed`, which is of the packing, several samples share a window. A batch has ``input_ids``, ``labels`` and
    ``positions``, (B, T) int64 each. Positions begin at 0 with each sample, by which a model knows where one begins;
    behind the last each is 0 and has the label -100. Without, a sample has a row, padded at its end, where nothing sees
    it, to the batch's longest, rounded up to 8 where `seq_len` has room for that; and a batch has no positions.
    """

    def __init__(self, samples: SampleSet, seq_len: int, seed: int | None = None, counted: bool = False) -> None:
        self.samples, self.seq_len, self.counted, self.is_packed = samples, seq_len, counted, seed is not None
        self.windows = np.arange(len(samples))[:, None] if seed is None else pack(samples.lengths, seq_len, seed)

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def filled(self) -> float:
        """Share of all positions that hold a token."""
        return float(self.samples.lengths.sum()) / max(1, len(self) * self.seq_len)

    def text_bytes(self, indices: Indices) -> float:
        samples = (self.samples[sample] for i in indices for sample in self.windows[i])
        return float(sum(n_bytes[1:][learnt[1:]].sum() for _, learnt, n_bytes in samples))  # no label holds the first

    def words(self, starts: WordStarts) -> np.ndarray:
        found, _ = starts(self.samples.ids, begins=self.samples.offsets[:-1])
        of_sample = np.add.reduceat(found, self.samples.offsets[:-1])
        return np.array([of_sample[samples].sum() for samples in self.windows], dtype=np.int64)

    def batch(self, indices: Indices) -> dict[str, Tensor]:
        length = self.seq_len
        if not self.is_packed:
            longest = int(self.samples.lengths[np.asarray(indices)].max())
            length = min(length, -(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE)
        shape = (len(indices), length)
        ids, labels, positions = (np.full(shape, empty, dtype=np.int64) for empty in (0, IGNORE_INDEX, 0))
        for row, window in enumerate(indices):
            end = 0
            for sample in self.windows[window]:
                tokens, learnt, _ = self.samples[sample]
                start, end = end, end + len(tokens) - 1
                ids[row, start:end] = tokens[:-1]
                labels[row, start:end] = np.where(learnt[1:], tokens[1:], IGNORE_INDEX)
                positions[row, start:end] = np.arange(end - start)
        batch = {"input_ids": ids, "labels": labels, **({"positions": positions} if self.is_packed else {})}
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def pack(lengths: np.ndarray, room: int, seed: int) -> list[list[int]]:
    """Samples of (k,) `lengths`, at most `room`, to windows of `room` positions, each a list of sample indices.
    Best-fit decreasing: the longest sample first, each into the fullest window that still takes it (at most 11/9 of the
    fewest windows there can be, and 4: Johnson et al. 1974). `seed` decides among samples of the same length, so that
    those that were written one after another part."""
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    order = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    windows: list[list[int]] = []
    with_left: defaultdict[int, list[int]] = defaultdict(list)  # positions left -> windows
    left_sorted: list[int] = []
    for sample in order.tolist():
        length = int(lengths[sample])
        place = bisect_left(left_sorted, length)
        if place == len(left_sorted):
            window, left = len(windows), room
            windows.append([])
        else:
            left = left_sorted[place]
            window = with_left[left].pop()
            if not with_left[left]:
                left_sorted.pop(place)
        windows[window].append(sample)
        left -= length
        if left and not with_left[left]:
            insort(left_sorted, left)
        if left:
            with_left[left].append(window)
    return windows
