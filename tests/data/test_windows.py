"""Tokens to windows: every token but the first is to be predicted, once, from the one before it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.data.batches.windows import IGNORE_INDEX, WindowDataset
from slm.errors import UserError

sizes = {"n": st.integers(2, 200), "seq_len": st.integers(1, 40)}


@given(**sizes)
@settings(max_examples=200, deadline=None)
def test_every_token_but_the_first_is_a_label_once(n: int, seq_len: int) -> None:
    """The original trained on the first window of each file only, and scored padding as text.

    All tokens differ here, so that equal lists mean: each label is its input's successor, in its place.
    """
    tokens = np.arange(1000, 1000 + n, dtype=np.uint16)
    dataset = WindowDataset(tokens, seq_len)
    batch = dataset.__getitems__(np.arange(len(dataset)))
    inputs, labels = batch["input_ids"], batch["labels"]
    assert inputs.shape == labels.shape == (len(dataset), seq_len)
    assert inputs.dtype == labels.dtype == torch.int64
    inputs, labels = inputs.flatten(), labels.flatten()
    assert labels[: n - 1].tolist() == tokens[1:].tolist()
    assert inputs[: n - 1].tolist() == tokens[:-1].tolist()
    assert set(labels[n - 1 :].tolist()) <= {IGNORE_INDEX}
    assert set(inputs[n - 1 :].tolist()) <= {int(tokens[-1])}
    assert len(labels) - (n - 1) < seq_len, "a window of nothing but tail"


@given(**sizes, data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_batch_is_its_windows(n: int, seq_len: int, data: st.DataObject) -> None:
    """In any order, any of them twice."""
    dataset = WindowDataset(np.arange(n, dtype=np.uint16), seq_len)
    indices = data.draw(st.lists(st.integers(0, len(dataset) - 1), min_size=1, max_size=8))
    batch = dataset.__getitems__(indices)
    for row, index in enumerate(indices):
        for name in ("input_ids", "labels"):
            assert torch.equal(dataset[index][name], batch[name][row])


def test_the_largest_ids_stay_what_they_are() -> None:
    for dtype in (np.uint16, np.uint32):
        tokens = np.array([0, 1 << 15, (1 << 16) - 1, np.iinfo(dtype).max], dtype=dtype)
        window = WindowDataset(tokens, 3)[0]
        assert window["input_ids"].tolist() + window["labels"].tolist()[-1:] == tokens.tolist()


def test_batches_are_their_own_and_the_tokens_stay() -> None:
    """A step may write into a batch: neither the other tensor nor the next epoch sees that."""
    tokens = np.arange(9, dtype=np.int64)  # needs no conversion, where a view would be cheapest
    dataset = WindowDataset(tokens, 4)
    batch = dataset.__getitems__([0, 1])
    batch["labels"].fill_(-1)
    assert batch["input_ids"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    batch["input_ids"].fill_(-1)
    assert tokens.tolist() == list(range(9))


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_tokens_are_refused(n: int) -> None:
    with pytest.raises(UserError) as caught:
        WindowDataset(np.zeros(n, dtype=np.uint16), 4)
    assert str(caught.value) == f"data: a split of {n} token(s) has nothing to predict; give more text"
