"""What was read once need not be read again: keys and values of texts, for prompts that begin as these do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

MOST_BYTES = 512 << 20
_WORTH = 32  # tokens; fewer are read as quickly as they are found


@dataclass(frozen=True, eq=False)
class Prefix:
    """The first tokens of a prompt, with their keys and values (n_layers, n_kv_heads, n, head_dim)."""

    keys: Tensor
    values: Tensor

    def __len__(self) -> int:
        return self.keys.shape[2]


@dataclass(frozen=True, eq=False)
class _Text:
    ids: np.ndarray
    keys: Tensor
    values: Tensor

    @property
    def n_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class Prefixes:
    """Texts of one model, those that were used last within `most_bytes`. Several threads may use it."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._texts: list[_Text] = []  # in the order of their last use
        self._lock = threading.Lock()

    def of(self, prompt: Sequence[int]) -> Prefix | None:
        """The longest beginning that is known, short of the last token, whose logits are wanted."""
        ids = np.asarray(prompt[:-1], dtype=np.int64)
        with self._lock:
            shared = [_shared(text.ids, ids) for text in self._texts]
            n = max(shared, default=0)
            if n < _WORTH:
                return None
            text = self._texts.pop(shared.index(n))
            self._texts.append(text)
        return Prefix(text.keys[:, :, :n], text.values[:, :, :n])

    def keep(self, tokens: Sequence[int], keys: Tensor, values: Tensor) -> None:
        """A text that was read, with copies of its keys and values."""
        text = _Text(np.asarray(tokens, dtype=np.int64), keys, values)
        if len(text.ids) < _WORTH or text.n_bytes > self.most_bytes:
            return
        with self._lock:
            shared = [_shared(other.ids, text.ids) for other in self._texts]
            if any(n == len(text.ids) for n in shared):
                return
            kept = [other for other, n in zip(self._texts, shared, strict=True) if n < len(other.ids)]
            total = text.n_bytes + sum(other.n_bytes for other in kept)
            while total > self.most_bytes:
                total -= kept.pop(0).n_bytes
            self._texts = [*kept, text]


def _shared(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens two texts begin with in common."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n
