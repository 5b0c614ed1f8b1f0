"""Which windows make up which batch: the ranks together walk the order, without gap or overlap."""

from __future__ import annotations

from functools import partial
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.data.batches.order import _AT_ONCE, EvalBatches, TrainBatches, window_at


@given(
    n_windows=st.integers(1, 300),
    seed=st.integers(0, 99),
    start=st.integers(0, 10**9),
    batch_size=st.integers(1, 5),
    world_size=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_the_ranks_walk_the_order(n_windows: int, seed: int, start: int, batch_size: int, world_size: int) -> None:
    """Micro-batch by micro-batch, rank by rank, from the very next sample on, and past what is looked up at once."""
    count = 2 * _AT_ONCE + 3
    order = partial(window_at, n_windows=n_windows, seed=seed)
    ranks = [TrainBatches(order, start, batch_size, rank, world_size) for rank in range(world_size)]
    dealt = np.stack([np.stack(list(islice(batches, count))) for batches in ranks], axis=1)
    assert dealt.shape == (count, world_size, batch_size)
    assert dealt.ravel().tolist() == window_at(start + np.arange(dealt.size), n_windows, seed).tolist()
    assert next(iter(ranks[0])).tolist() == dealt[0, 0].tolist(), "a second iteration begins where the first did"


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize(("n_windows", "batch_size"), [(1, 4), (7, 3), (12, 4), (13, 1), (100, 8)])
def test_evaluation_covers_each_window_once(n_windows: int, batch_size: int, world_size: int) -> None:
    """None padded in, which would count twice; a rank may be left with fewer, or none."""
    ranks = [EvalBatches(n_windows, batch_size, rank, world_size) for rank in range(world_size)]
    read = [[batch.tolist() for batch in batches] for batches in ranks]
    dealt = [[] if batches.is_idle else of_rank for batches, of_rank in zip(ranks, read, strict=True)]
    assert all(of_rank == [[0]] for batches, of_rank in zip(ranks, read, strict=True) if batches.is_idle)
    assert sorted(window for rank in dealt for batch in rank for window in batch) == list(range(n_windows))
    assert [len(rank) for rank in read] == [len(batches) for batches in ranks]
    for rank in dealt:
        assert all(0 < len(batch) <= batch_size for batch in rank)
        assert all(len(batch) == batch_size for batch in rank[:-1])
    sizes = [sum(map(len, rank)) for rank in dealt]
    assert max(sizes) - min(sizes) <= 1
