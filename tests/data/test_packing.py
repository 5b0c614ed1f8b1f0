"""Samples in windows: each whole, once, few positions empty, and nothing seen of a neighbour."""

from __future__ import annotations

import inspect
import json
import pickle
import random
import textwrap
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from slm.data.batches.samples import SampleSet, SampleWindows, pack
from slm.models.config import ModelConfig
from slm.models.contract import build_model

T, VOCAB = 48, 40


def sample_set(lengths: list[int], seed: int = 0) -> SampleSet:
    """Random tokens; about half of each sample's are learnt, its last in any case."""
    draw = np.random.default_rng(seed)
    n = sum(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    learnt = draw.random(n) < 0.5
    learnt[offsets[1:] - 1] = True
    ids, n_bytes = draw.integers(VOCAB, size=n).astype(np.int32), draw.integers(5, size=n).astype(np.int32)
    return SampleSet(ids, learnt, n_bytes, offsets)


@given(lengths=st.lists(st.integers(1, 50), max_size=80), seed=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_each_sample_is_in_one_window_that_holds_it(lengths: list[int], seed: int) -> None:
    """And the same seed packs alike; of best-fit at most one window is half empty."""
    array = np.array(lengths, dtype=np.int64)
    windows = pack(array, 50, seed)
    assert sorted(sample for window in windows for sample in window) == list(range(len(lengths)))
    sums = [sum(lengths[sample] for sample in window) for window in windows]
    assert all(0 < used <= 50 for used in sums)
    assert sum(used <= 25 for used in sums) <= 1
    assert pack(array, 50, seed) == windows


def test_equal_lengths_are_shuffled_by_the_seed() -> None:
    assert pack(np.full(40, 10), 40, 1) != pack(np.full(40, 10), 40, 2)


def stdlib_lengths() -> list[int]:
    """Lengths in words and marks of the docstrings of modules that Python brings: as skewed as those of answers."""
    import argparse
    import asyncio
    import collections
    import email.message
    import logging
    import pathlib
    import statistics
    import subprocess
    import unittest

    modules = [argparse, asyncio, collections, email.message, json, logging, pathlib, random, statistics, subprocess]
    docs = {
        inspect.getdoc(member) or ""
        for module in [*modules, textwrap, unittest, inspect]
        for _, owner in [("", module), *inspect.getmembers(module, inspect.isclass)]
        for _, member in [("", owner), *inspect.getmembers(owner, callable)]
    }
    return [min(len(doc.split()) * 4 // 3, 511) + 1 for doc in docs if len(doc.split()) > 2]


def test_windows_are_full_on_real_lengths() -> None:
    """The bar is 95 % of positions; docstrings give well over, at a window of four times the mean and more."""
    lengths = stdlib_lengths()
    assert len(lengths) > 300
    for seq_len in (512, 1024):
        assert SampleWindows(sample_set(lengths), seq_len, seed=1).filled > 0.95


def model(kind: str = "learned", **shape: Any) -> Any:
    torch.manual_seed(0)
    values = {
        "name": "gpt",
        "params": {"max_seq_len": T, "vocab_size": VOCAB},
        "modules": {
            "transformer": {"dim": 32, "n_layers": 2, "n_heads": 4, **shape},
            "position_embedding": {"kind": kind},
        },
    }
    made = build_model(ModelConfig.from_dict(values))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)  # so that attention looks somewhere
    return made.eval()


@pytest.mark.parametrize("kind", ["learned", "rotary", "sinusoidal", "none"])
@pytest.mark.parametrize("shape", [{}, {"sliding_window": 5}, {"n_kv_heads": 2, "qk_norm": True}])
def test_a_packed_sample_is_as_it_is_alone(kind: str, shape: dict[str, Any]) -> None:
    """Logits and loss within 1e-5, whatever stands beside it."""
    samples = sample_set([5, 30, 18, 2, 9, 40, 3, 12])
    packed = SampleWindows(samples, T, seed=3)
    alone = SampleWindows(samples, T)
    made = model(kind, **shape)
    assert max(map(len, packed.windows)) > 2
    batch = packed.__getitems__(np.arange(len(packed)))
    with torch.no_grad():
        hidden = made.hidden_states(batch["input_ids"], positions=batch["positions"])
        logits = made.head(hidden)
        assert not logits.isnan().any()
        total = 0.0
        for row, window in enumerate(packed.windows):
            end = 0
            for sample in window:
                one = alone[sample]
                n = int(samples.lengths[sample])
                place = slice(end, end := end + n)
                expected = made(one["input_ids"][None, :n])[0]
                assert torch.equal(batch["labels"][row, place], one["labels"][:n])
                assert torch.allclose(logits[row, place], expected, atol=1e-5, rtol=0)
                total += cross_entropy(expected, one["labels"][:n], reduction="sum").item()
        n_learnt = int((batch["labels"] >= 0).sum())
        together = made_loss(made, hidden, batch["labels"]) / n_learnt
    assert together == pytest.approx(total / n_learnt, abs=1e-5)


def made_loss(made: Any, hidden: torch.Tensor, labels: torch.Tensor) -> float:
    from slm.models.contract import build_loss

    return build_loss(made.config)(hidden, made.head_weight, labels, VOCAB).item()


def test_a_loader_that_is_not_forked_gets_shared_memory() -> None:
    """It was sent every token, and has the same samples."""
    samples = sample_set([20_000, 3])
    _, values = samples.__reduce__()
    assert sum(isinstance(value, torch.Tensor) for value in values) == 4
    again = pickle.loads(pickle.dumps(SampleWindows(samples, 30_000, seed=0)))
    batch, other = (packed.__getitems__([0]) for packed in (again, SampleWindows(samples, 30_000, seed=0)))
    assert all(torch.equal(batch[name], other[name]) for name in batch)
    assert again.text_bytes([0]) == SampleWindows(samples, 30_000, seed=0).text_bytes([0])


def test_what_is_learnt_is_the_successor() -> None:
    """Shifted once: at a position stands the label of the next token, where that is learnt."""
    samples = SampleSet(
        np.array([7, 8, 9, 5, 6], dtype=np.int32),
        np.array([False, True, True, False, True]),
        np.array([1, 2, 3, 4, 5], dtype=np.int32),
        np.array([0, 3, 5]),
    )
    batch = SampleWindows(samples, 4, seed=0).__getitems__([0])
    assert batch["input_ids"].tolist() == [[7, 8, 5, 0]]
    assert batch["labels"].tolist() == [[8, 9, 6, -100]]
    assert SampleWindows(samples, 4, seed=0).text_bytes([0]) == 2 + 3 + 5
    assert batch["positions"].tolist() == [[0, 1, 0, 0]]
    batch = SampleWindows(samples, 8).__getitems__([1, 0])
    assert batch["input_ids"].tolist() == [[5] + [0] * 7, [7, 8] + [0] * 6]
    assert batch["labels"].tolist() == [[6] + [-100] * 7, [8, 9] + [-100] * 6]
