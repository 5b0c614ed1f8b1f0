"""A mixture: shares are exact, each part goes through its own epochs, and a run goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.data.batches.datamodule import TextDataModule
from slm.data.batches.mixture import MixtureStore, find_data, find_data_with, prepare_mixture
from slm.data.batches.order import BLOCK, MixtureOrder, slots
from slm.data.config import CorpusConfig
from slm.data.store.find import prepare_store
from slm.data.store.processes import StoppedError
from slm.errors import UserError

weights_of_parts = st.lists(st.floats(0.05, 5), min_size=2, max_size=5)


@given(weights=weights_of_parts)
def test_shares_are_as_near_to_the_weights_as_can_be(weights: list[float]) -> None:
    given_slots = slots(weights)
    assert given_slots.sum() == BLOCK
    assert np.abs(given_slots / BLOCK - np.array(weights) / sum(weights)).max() < 1 / BLOCK
    assert slots([0.7, 0.2, 0.1]).tolist() == [700, 200, 100]


@given(weights=weights_of_parts, data=st.data(), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_each_part_goes_through_its_own_epochs(weights: list[float], data: st.DataObject, seed: int) -> None:
    """Every block holds each part by its share, and a part's samples, in the order in which they stand, are its
    windows once an epoch, another order each time."""
    sizes = [data.draw(st.integers(1, 400)) for _ in weights]
    windows = MixtureOrder(sizes, weights, seed)(np.arange(3 * BLOCK))
    ends = np.cumsum(sizes)
    part = np.searchsorted(ends, windows, side="right")
    for i, (size, share) in enumerate(zip(sizes, slots(weights), strict=True)):
        assert (np.bincount(np.flatnonzero(part == i) // BLOCK, minlength=3) == share).all()
        own = windows[part == i] - (ends[i] - size)
        for epoch in range(len(own) // size):
            assert sorted(own[epoch * size : (epoch + 1) * size]) == list(range(size))
        if len(own) >= 2 * size and size > 20:
            assert own[:size].tolist() != own[size : 2 * size].tolist()


def test_the_order_is_a_function_of_seed_and_position() -> None:
    """Any positions, asked for in any company; parts alternate rather than come in runs of a block."""
    order = MixtureOrder([30, 7, 1000], [1, 2, 3], seed=3)
    asked = np.random.default_rng(0).integers(0, 10**7, 500)
    assert order(asked).tolist() == [int(order(np.array([position]))[0]) for position in asked]
    assert order(np.arange(100)).tolist() != MixtureOrder([30, 7, 1000], [1, 2, 3], seed=4)(np.arange(100)).tolist()
    part, _ = order.samples(np.arange(BLOCK))
    assert (np.diff(part) != 0).mean() > 0.4


@pytest.fixture
def mixture(tmp_path: Path) -> Callable[..., CorpusConfig]:
    """Letters and digits, at 1 to 3."""
    (tmp_path / "letters.txt").write_text("abcdefgh" * 100)
    (tmp_path / "digits.txt").write_text("01234567" * 40)

    def of(weight: float = 3.0, **parts: Any) -> CorpusConfig:
        text = {"kind": "text", "patterns": ["*.txt"]}
        nodes = {
            "letters": {**text, "path": str(tmp_path / "letters.txt")},
            "digits": {**text, "path": str(tmp_path / "digits.txt"), "weight": weight},
        }
        return CorpusConfig.from_dict({"kind": "mixture", "cache_dir": str(tmp_path / "cache"), "parts": nodes | parts})

    return of


def test_one_vocabulary_of_all_parts(mixture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted once, on the training text of all."""
    store = find_data(mixture(), {"kind": "simple"})
    assert isinstance(store, MixtureStore)
    assert store.tokenizer.vocab_size == 3 + 16
    assert {s.tokenizer.fingerprint for s in store.stores.values()} == {store.tokenizer.fingerprint}
    assert store.shares == {"letters": 0.25, "digits": 0.75}
    assert store.meta["train"]["bytes"] == sum(s.meta["train"]["bytes"] for s in store.stores.values())
    monkeypatch.delattr("slm.data.batches.mixture.training_texts")
    assert find_data(mixture(), {"kind": "simple"}).fingerprint == store.fingerprint
    assert find_data(mixture(2.0), {"kind": "byte"}).fingerprint != find_data(mixture(), {"kind": "byte"}).fingerprint


def test_prepared_parts_bring_the_vocabulary(mixture: Any) -> None:
    whole = find_data(mixture(), {"kind": "simple"})
    assert isinstance(whole, MixtureStore)
    prepared = {"kind": "prepared", "path": str(whole.stores["digits"].folder)}
    again = find_data(mixture(digits={**prepared, "weight": 3}), {"kind": "byte"})
    assert again.fingerprint == whole.fingerprint
    other = find_data(mixture(), {"kind": "byte"})
    with pytest.raises(UserError, match="was made with another tokenizer"):
        find_data_with(mixture(digits=prepared), other.tokenizer)


def test_a_mixture_that_broke_off_goes_on(mixture: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is finished is not made again; other weights are another mixture, and a stranger's file is none."""
    made: list[str] = []

    def breaks_off(corpus: CorpusConfig, tokenizer: Any, folder: Path, num_processes: Any) -> Any:
        made.append(folder.name)
        if made == ["part_0", "part_1"]:
            raise StoppedError("killed")
        return prepare_store(corpus, tokenizer, folder, 1)

    monkeypatch.setattr("slm.data.batches.mixture.prepare_store", breaks_off)
    with pytest.raises(StoppedError, match=r"\Akilled; what is finished is kept"):
        prepare_mixture(mixture(), {"kind": "simple"}, tmp_path / "mixed")
    store = prepare_mixture(mixture(), {"kind": "simple"}, tmp_path / "mixed")
    assert made == ["part_0", "part_1", "part_1"]
    assert store.fingerprint == find_data(mixture(), {"kind": "simple"}).fingerprint
    prepared = CorpusConfig("prepared", "cache", settings={"path": str(tmp_path / "mixed")})
    assert find_data(prepared, {"kind": "byte"}).fingerprint == store.fingerprint
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cache", "digits.txt", "letters.txt", "mixed"]
    with pytest.raises(UserError, match="was made with another tokenizer"):
        find_data_with(prepared, find_data(mixture(), {"kind": "byte"}).tokenizer)
    with pytest.raises(UserError, match=r"split=test: the token store '[^']*part_0' has no such part"):
        find_data_with(prepared, store.tokenizer, "test")
    for damaged in ('{"parts": [{"name": "a", "weight": 0}]}', "[]", '{"parts": []}'):
        (tmp_path / "mixed/mixture.json").write_text(damaged)
        with pytest.raises(UserError, match=r"mixture.json[^\n]*is damaged"):
            find_data(prepared, {"kind": "byte"})


def test_batches_hold_the_parts_windows(mixture: Any) -> None:
    """What a batch reads is what the parts' own windows read; in validation each part has its loader."""
    store = find_data(mixture(), {"kind": "byte"})
    module = TextDataModule(store, seq_len=8, batch_size=10, seed=1)
    batches = iter(module.train_dataloader())
    seen = torch.cat([next(batches)["input_ids"][:, 0] for _ in range(100)])
    assert (seen < ord("a")).sum() == 750
    validation = module.val_dataloader()
    assert isinstance(validation, list)
    letters, digits = (torch.cat([batch["input_ids"] for batch in loader]) for loader in validation)
    assert letters.min() >= ord("a")
    assert digits.max() < ord("a")


PARTS = ("data=mixture", "+data@data.parts.words=text", "+data@data.parts.stdlib=text", "+data.parts.words.weight=3")


def test_a_run_on_a_mixture_logs_each_part_and_is_resumed_exactly(
    run_cli: Any, tiny: tuple[str, ...], text_file: Path, tmp_path: Path, metrics_of: Any
) -> None:
    """Also with loader processes; other weights are other data."""
    (tmp_path / "other.txt").write_text("def f(x):\n    return x + 1\n" * 300)
    parts = (*PARTS, f"data.parts.words.path={text_file}", "data.parts.stdlib.path=other.txt")
    small = [setting for setting in tiny if not setting.startswith("data")]
    assert run_cli("train", *parts, *small, "run_dir=whole").status == 0
    rows = metrics_of(tmp_path / "whole")
    losses = [row for row in rows if row["val/loss"]]
    for row in losses:
        whole, words, other = (float(row[f"val/loss{part}"]) for part in ("", "/words", "/stdlib"))
        assert whole == pytest.approx(0.75 * words + 0.25 * other, rel=1e-12)
        assert words != other
    assert run_cli("train", *parts, *small, "run_dir=cut", "stop_after=3", "data.num_workers=2").status == 0
    assert run_cli("train", "resume=cut").status == 0
    assert metrics_of(tmp_path / "cut") == rows
    outcome = run_cli(
        "train", "resume=cut", "data.parts.words.weight=2", "trainer.max_steps=8", "scheduler.on_extend=hold"
    )
    assert (outcome.status, "the data is not what the checkpoint was trained on" in outcome.err) == (2, True)
    outcome = run_cli("evaluate", "run=whole")
    assert outcome.status == 0, outcome.err
    assert '"loss/words"' in outcome.out
