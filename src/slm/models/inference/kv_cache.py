"""Keys and values of past positions, preallocated once; each row may stand at a position of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from slm.models.contract import Positions
from slm.models.modules.transformer import attention_mask

_CLEARED_TOGETHER = 256  # positions


class KVCache:
    """Room for keys and values of shape (n_layers, rows, n_kv_heads, max_len, head_dim). Rows at the same position take
    the fast way, plain slices and no mask; rows that are not can only be extended by one position at a time."""

    lengths: list[int]  # positions filled, for each row in use; the rows in use are the first ones
    offsets: list[int]  # positions that each has forgotten: its next token stands at length + offset

    def __init__(self, shape: tuple[int, int, int, int, int], device: torch.device, dtype: torch.dtype) -> None:
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self._written = empty = [0] * shape[1]  # positions of each row that hold numbers, in use or not
        self._set(empty, empty)

    # ---- what a forward pass asks and tells: `slm.models.contract.Cache` ----

    def positions(self, n_tokens: int) -> Positions:
        if self._in_step:
            start = self.lengths[0] + self.offsets[0]
            return slice(start, start + n_tokens)
        assert n_tokens == 1, "rows at different positions take one token at a time"
        return self._places + self._shifts

    def end(self, n_tokens: int) -> int:
        return max(map(sum, zip(self.lengths, self.offsets, strict=True))) + n_tokens

    def mask(self, n_tokens: int, window: int | None) -> Tensor | None:
        if self._in_step:
            return attention_mask(n_tokens, self.lengths[0], window, self.keys.device)
        return _seen(torch.arange(self._longest + 1, device=self.keys.device), self._places, window)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Views of all that are filled; of a row that is behind, the last positions hold nothing."""
        n_rows = keys.shape[0]
        all_keys, all_values = self.keys[layer, :n_rows], self.values[layer, :n_rows]
        if self._in_step:
            start, end = self.lengths[0], self.lengths[0] + keys.shape[2]
            all_keys[:, :, start:end], all_values[:, :, start:end] = keys, values
        else:
            end = self._longest + 1
            places = self._places[:, 0]
            all_keys[self._rows, :, places], all_values[self._rows, :, places] = keys[:, :, 0], values[:, :, 0]
        return all_keys[:, :, :end], all_values[:, :, :end]

    def advance(self, n_tokens: int) -> None:
        self.lengths = [length + n_tokens for length in self.lengths]
        self._longest += n_tokens
        if not self._in_step:
            self._places += n_tokens
            self._clear()

    # ---- what a decode loop does with rows ----

    @property
    def max_len(self) -> int:
        return self.keys.shape[3]

    def keep(self, n_rows: int) -> None:
        """Use only the first `n_rows` rows."""
        self._set(self.lengths[:n_rows], self.offsets[:n_rows])

    def rows(self, start: int, stop: int) -> KVCache:
        """The rows ``start .. stop - 1`` as an empty cache of their own, in the same memory."""
        part = object.__new__(KVCache)
        part.keys, part.values = self.keys[:, start:stop], self.values[:, start:stop]
        part._written = [part.max_len] * (stop - start)
        part._set([0] * (stop - start), [0] * (stop - start))
        return part

    def append(self, lengths: list[int]) -> None:
        """Take the next rows into use, filled up to these lengths."""
        for row, length in enumerate(lengths, start=len(self.lengths)):
            self._written[row] = max(self._written[row], length)
        self._set([*self.lengths, *lengths], [*self.offsets, *([0] * len(lengths))])

    def begin_with(self, keys: Tensor, values: Tensor) -> None:
        """Let a single row that is empty hold these (n_layers, n_kv_heads, n, head_dim)."""
        n = keys.shape[2]
        self.keys[:, 0, :, :n], self.values[:, 0, :, :n] = keys, values
        self._set([n], [0])

    def copied(self, row: int) -> tuple[Tensor, Tensor]:
        """The keys and values of a row, as `begin_with` takes them."""
        n = self.lengths[row]
        return self.keys[:, row, :, :n].clone(), self.values[:, row, :, :n].clone()

    def drop(self, row: int) -> None:
        """Take a row out of use: the last one in use moves into its place."""
        *lengths, n = self.lengths
        *offsets, offset = self.offsets
        if row != len(lengths):
            for store in (self.keys, self.values):
                store[:, row, :, :n] = store[:, len(lengths), :, :n]
            lengths[row], offsets[row] = n, offset
            self._written[row] = max(self._written[row], n)
        self._set(lengths, offsets)

    def take_over(self, other: KVCache) -> None:
        """Begin with the rows in use of a smaller cache, where they stand."""
        n_rows, filled = len(other.lengths), max(other.lengths, default=0)
        for store, smaller in ((self.keys, other.keys), (self.values, other.values)):
            store[:, :n_rows, :, :filled] = smaller[:, :n_rows, :, :filled]
        for row in range(n_rows):
            # what lies behind the end of a shorter row is no number perhaps
            self._written[row] = max(self._written[row], other.lengths[row])
        self._set(other.lengths, other.offsets)

    def forget(self, row: int, n_tokens: int) -> None:
        """Let a row forget its oldest positions; the others keep theirs (only relative positions allow that)."""
        n = self.lengths[row] - n_tokens
        for store in (self.keys, self.values):
            store[:, row, :, :n] = store[:, row, :, n_tokens : n_tokens + n].clone()
        self.lengths[row], self.offsets[row] = n, self.offsets[row] + n_tokens
        self._set(self.lengths, self.offsets)

    def _set(self, lengths: list[int], offsets: list[int]) -> None:
        self.lengths, self.offsets = list(lengths), list(offsets)
        self._in_step = len(set(zip(lengths, offsets, strict=True))) <= 1
        self._longest = max(lengths, default=0)
        if not self._in_step:
            device = self.keys.device
            self._rows = torch.arange(len(lengths), device=device)
            self._places = torch.tensor(lengths, device=device)[:, None]
            self._shifts = torch.tensor(offsets, device=device)[:, None]
            self._cleared = 0
            self._clear()

    def _clear(self) -> None:
        # Zeros where rows that are behind hold nothing yet: what a mask hides must be a number, nan times 0 is nan. No
        # further than the next steps look, since memory that nobody touched costs nothing.
        if self._longest < self._cleared:
            return
        self._cleared = min(self._longest + _CLEARED_TOGETHER, self.max_len)
        for row, length in enumerate(self.lengths):
            start = max(self._written[row], length)
            if start < self._cleared:
                for store in (self.keys, self.values):
                    store[:, row, :, start : self._cleared] = 0
            self._written[row] = max(start, self._cleared)


class StaticCache:
    """All rows of a `KVCache`, each extended by one position at a time, as a step of fixed shapes sees them. Nothing
    that it tells a forward pass depends on the step but through `lengths`, so the operations of one step can be
    recorded and run again. All of the memory must hold numbers: what the mask hides too, nan times 0 is nan. `end` is
    one more than the last position that a row may come to stand at (the size of rotary tables)."""

    def __init__(self, cache: KVCache, end: int) -> None:
        self._keys, self._values = cache.keys, cache.values
        self._end = end
        n_rows, device = cache.keys.shape[1], cache.keys.device
        self.lengths = torch.zeros(n_rows, dtype=torch.int64, device=device)  # a row that is full stays at its last
        self._rows = torch.arange(n_rows, device=device)
        self._places = torch.arange(cache.max_len, device=device)

    def positions(self, n_tokens: int) -> Positions:
        return self.lengths[:, None]

    def end(self, n_tokens: int) -> int:
        return self._end

    def mask(self, n_tokens: int, window: int | None) -> Tensor:
        return _seen(self._places, self.lengths[:, None], window)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        all_keys, all_values = self._keys[layer], self._values[layer]
        all_keys[self._rows, :, self.lengths] = keys[:, :, 0]
        all_values[self._rows, :, self.lengths] = values[:, :, 0]
        return all_keys, all_values

    def advance(self, n_tokens: int) -> None:
        self.lengths.add_(n_tokens).clamp_(max=len(self._places) - 1)


def _seen(places: Tensor, last: Tensor, window: int | None) -> Tensor:
    """(B, 1, 1, S) bool: which of `places` (S,) a query at `last` (B, 1) sees."""
    seen = places <= last
    if window is not None:
        seen = seen & (places > last - window)
    return seen[:, None, None, :]
