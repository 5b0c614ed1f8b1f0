"""Sequences that begin alike, read together: what they share is one path of a tree, and is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from slm.models.contract import Positions
from slm.models.modules.transformer import attention_mask

_SHARED = 4  # a sequence joins a tree if it shares at least a quarter of its tokens
_MOST_IN_TREE = 1024  # tokens: each is compared with all others, masked or not


@dataclass
class TokenTree:
    """Tokens in depth-first order: those below token i are ``i + 1 .. ends[i] - 1``, so that token t sees token s where
    ``s <= t < ends[s]`` (the idea of SpecInfer's tree attention, Miao et al. 2024)."""

    ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)  # where each stands in its sequence
    ends: list[int] = field(default_factory=list)
    paths: list[tuple[int, list[int]]] = field(default_factory=list)  # a sequence's index, where its tokens stand here
    _path: list[int] = field(default_factory=list)  # of the sequence that was added last

    def add(self, index: int, sequence: Sequence[int], shared: int) -> None:
        """Add a sequence whose first `shared` tokens are those of the one before."""
        new = range(len(self.ids), len(self.ids) + len(sequence) - shared)
        self._path = [*self._path[:shared], *new]
        self.ids += sequence[shared:]
        self.depths += range(shared, len(sequence))
        self.ends += [0] * len(new)
        for place in self._path:
            self.ends[place] = len(self.ids)
        self.paths.append((index, self._path))

    @property
    def is_chain(self) -> bool:
        """It is one sequence, which plain causality serves."""
        return len(self.ids) == len(self._path)


def trees_of(sequences: Sequence[list[int]], share: bool = True) -> list[TokenTree]:
    """All sequences in trees of those that begin alike, or, unless `share`, in chains of those that are the beginning
    of one another. Chains stand behind trees, and of both the largest first."""
    order = sorted(range(len(sequences)), key=lambda index: sequences[index])
    trees: list[TokenTree] = []
    before: Sequence[int] = ()
    for index in order:
        sequence = sequences[index]
        shared = _begin_alike(before, sequence)
        if not trees or not _joins(trees[-1], len(sequence), shared, share):
            trees.append(TokenTree())
            shared = 0
        trees[-1].add(index, sequence, shared)
        before = sequence
    return sorted(trees, key=lambda tree: (tree.is_chain, -len(tree.ids)))


def _joins(tree: TokenTree, length: int, shared: int, share: bool) -> bool:
    goes_on = shared == len(tree.ids)
    fits = shared * _SHARED >= length and len(tree.ids) + length - shared <= max(_MOST_IN_TREE, length)
    return goes_on or (share and fits)


def _begin_alike(first: Sequence[int], second: Sequence[int]) -> int:
    shortest = min(len(first), len(second))
    return next((n for n in range(shortest) if first[n] != second[n]), shortest)


class TreeCache:
    """A `slm.models.contract.Cache` that keeps nothing: it tells a model where the tokens of trees stand, one tree a
    row, and which others each sees. Chains alone are read as plain sequences."""

    def __init__(self, trees: Sequence[TokenTree], width: int, device: torch.device) -> None:
        self._is_plain = all(tree.is_chain for tree in trees)
        depths, ends = [], []
        for tree in trees:
            n = len(tree.ids)
            depths.append([*tree.depths, *([0] * (width - n))])
            ends.append([*tree.ends, *range(n + 1, width + 1)])  # what fills a row sees itself, so that it has numbers
        self._depths = torch.tensor(depths, device=device)
        self._ends = torch.tensor(ends, device=device)
        self._end = max(map(max, depths)) + 1

    def positions(self, n_tokens: int) -> Positions:
        return slice(0, n_tokens) if self._is_plain else self._depths

    def end(self, n_tokens: int) -> int:
        return self._end

    def mask(self, n_tokens: int, window: int | None) -> Tensor | None:
        """(B, 1, T, T) bool."""
        if self._is_plain:
            return attention_mask(n_tokens, 0, window, self._ends.device)
        place = torch.arange(n_tokens, device=self._ends.device)
        seen = (place <= place[:, None]) & (place[:, None] < self._ends[:, None])
        if window is not None:
            seen = seen & (self._depths[:, None] > self._depths[:, :, None] - window)
        return seen[:, None]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return keys, values

    def advance(self, n_tokens: int) -> None:
        """Nothing is kept."""
