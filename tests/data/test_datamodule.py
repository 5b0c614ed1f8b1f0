"""The position is the whole state of the data: interrupted anywhere, the sequence of samples goes on."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_store import Split, split_documents, write_store
from torch import Tensor

from slm.data.batches.datamodule import TextDataModule
from slm.data.batches.order import window_at
from slm.data.batches.windows import WindowDataset
from slm.data.documents.source import Document
from slm.data.store.token_store import TokenStore
from slm.errors import UserError
from slm.tokenizers.byte import ByteTokenizer

T = 8
SEED = 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """50 training windows and 23 of validation, the last of each with a tail; all differ."""
    draw = random.Random(0)
    text = "".join(draw.choice("abcdefghij") for _ in range(580))
    made = write_store(
        tmp_path_factory.mktemp("data") / "store",
        split_documents([Document("a.txt", text)], 0.312),
        ByteTokenizer(),
    )
    assert [len(WindowDataset(made.tokens(split), T)) for split in ("train", "val")] == [50, 23]
    return made


def module_of(store: TokenStore, rank: int = 0, world_size: int = 1, **changes: Any) -> TextDataModule:
    """As the Trainer leaves it on that rank."""
    module = TextDataModule(store, **{"seq_len": T, "batch_size": 4, "seed": SEED, **changes})
    module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)  # type: ignore[assignment]
    return module


def rows(batch: dict[str, Tensor]) -> list[tuple[int, ...]]:
    """Each sample of a batch, its inputs and then its labels."""
    return [tuple(row) for row in torch.cat([batch["input_ids"], batch["labels"]], dim=1).tolist()]


def windows(store: TokenStore, split: str = "train") -> list[tuple[int, ...]]:
    dataset = WindowDataset(store.tokens(split), T)
    return rows(dataset.__getitems__(np.arange(len(dataset))))


def trained(store: TokenStore, sessions: list[tuple[int, int, int, int]]) -> Iterator[tuple[int, ...]]:
    """The samples that a run in `sessions` (batches, batch size, workers, ranks) trains on, in their order.

    What goes from one session to the next is what a checkpoint holds, by way of JSON.
    """
    saved: str | None = None
    for batches, batch_size, num_workers, world_size in sessions:
        changes = {"batch_size": batch_size, "num_workers": num_workers}
        modules = [module_of(store, rank, world_size, **changes) for rank in range(world_size)]
        for module in modules:
            if saved is not None:
                module.load_state_dict(json.loads(saved))
        loaders = [iter(module.train_dataloader()) for module in modules]
        for _ in range(batches):
            for module, loader in zip(modules, loaders, strict=True):
                yield from rows(next(loader))
                module.train_batch_taken()
        assert len({json.dumps(module.state_dict()) for module in modules}) == 1, "the ranks disagree"
        saved = json.dumps(modules[-1].state_dict())


def in_one_go(store: TokenStore, samples: int) -> list[tuple[int, ...]]:
    all_windows = windows(store)
    return [all_windows[i] for i in window_at(np.arange(samples), len(all_windows), SEED)]


@given(
    sessions=st.lists(
        st.tuples(st.integers(0, 12), st.integers(1, 7), st.just(0), st.integers(1, 4)), min_size=1, max_size=5
    )
)
@settings(max_examples=40, deadline=None)
def test_a_run_in_parts_reads_what_one_in_one_go_reads(
    store: TokenStore, sessions: list[tuple[int, int, int, int]]
) -> None:
    """However often it is interrupted, and whatever the batch size and the number of ranks from there on."""
    read = list(trained(store, sessions))
    assert read == in_one_go(store, len(read))


def test_what_workers_fetched_ahead_is_fetched_again(store: TokenStore) -> None:
    """Two workers hold four batches that were never trained on when the run ends. Over two epochs every window
    is read exactly twice."""
    read = list(trained(store, [(3, 4, 2, 1), (2, 4, 0, 1), (3, 4, 2, 2), (7, 4, 0, 2), (0, 4, 2, 1)]))
    assert read == in_one_go(store, 100)
    assert sorted(read) == sorted(2 * windows(store))
    assert sorted(read[:50]) == sorted(windows(store))


def test_workers_change_nothing(store: TokenStore) -> None:
    """Neither training, past the batches that are looked up at once, nor validation, which knows its text's bytes."""
    told: dict[str, set[str]] = {"train_dataloader": set(), "val_dataloader": {"text_bytes"}}
    for loader in told:
        alone, helped = (
            list(islice(getattr(module_of(store, num_workers=workers), loader)(), 70)) for workers in (0, 2)
        )
        assert len(alone) == len(helped) == (70 if loader == "train_dataloader" else 6)
        for one, other in zip(alone, helped, strict=True):
            assert one.keys() == other.keys() == {"input_ids", "labels"} | told[loader]
            assert all(torch.equal(one[name], other[name]) for name in ("input_ids", "labels"))
            assert one.get("text_bytes") == other.get("text_bytes")


@pytest.mark.nightly
def test_a_loader_that_is_not_forked_gets_a_path(tmp_path: Path) -> None:
    """macOS, Windows, and Linux from Python 3.14 start loaders afresh and send them the data set: it was every token,
    to each. Of one file and of several; what they read is the same."""
    texts = [Document(f"{i}.txt", "".join(random.Random(i).choices("abcdefghij", k=50_000))) for i in range(6)]
    for documents_a_shard in (10**9, 2):
        made = write_store(
            tmp_path / str(documents_a_shard), split_documents(texts, 0.4), ByteTokenizer(), documents_a_shard
        )
        assert (len(made.meta["train"]["shards"]) > 1) == (documents_a_shard == 2)
        for loader in ("train_dataloader", "val_dataloader"):
            sent = pickle.dumps(dataset := getattr(module_of(made), loader)().dataset)
            assert len(sent) < 10_000 < made.meta["val"]["tokens"]
            assert rows(pickle.loads(sent).__getitems__(np.arange(3))) == rows(dataset.__getitems__(np.arange(3)))
    alone, helped = (module_of(made, num_workers=workers).val_dataloader() for workers in (0, 1))
    helped.multiprocessing_context = "spawn"  # type: ignore[union-attr]
    for one, other in zip(islice(alone, 3), islice(helped, 3), strict=True):
        assert rows(one) == rows(other)
        assert one["text_bytes"] == other["text_bytes"]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("split", ["train", "val"])
def test_validation_reads_every_window_once(store: TokenStore, split: str, world_size: int) -> None:
    """Over all ranks, every time it is asked, and without moving the position."""
    modules = [module_of(store, rank, world_size, eval_split=split, batch_size=3) for rank in range(world_size)]
    loaders = [module.val_dataloader() for module in modules]
    for _ in range(2):
        read = [row for loader in loaders for batch in loader for row in rows(batch)]
        assert sorted(read) == sorted(windows(store, split))
    assert {module.position for module in modules} == {0}


def test_without_a_trainer_there_is_one_rank(store: TokenStore) -> None:
    module = TextDataModule(store, T, 4, seed=SEED)
    assert rows(next(iter(module.train_dataloader()))) == in_one_go(store, 4)
    module.train_batch_taken()
    assert module.position == 4


def test_another_seed_is_another_order(store: TokenStore) -> None:
    one, other = (rows(next(iter(module_of(store, seed=seed, batch_size=50).train_dataloader()))) for seed in (3, 4))
    assert one != other
    assert sorted(one) == sorted(other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 4}, "seed 3 -> 4"),
        ({"seq_len": 16}, "seq_len 8 -> 16"),
        ({"seq_len": 16, "seed": 4}, "seed 3 -> 4; seq_len 8 -> 16"),
    ],
)
def test_what_would_be_no_continuation_is_refused(store: TokenStore, changes: dict[str, int], said: str) -> None:
    """The position would mean another sample. The batch size, which only cuts the sequence, may change."""
    saved = {**module_of(store).state_dict(), "position": 12}
    module = module_of(store, **changes)
    with pytest.raises(UserError) as caught:
        module.load_state_dict(saved)
    assert str(caught.value) == (
        f"resume: the data is not what the checkpoint was trained on ({said}); restore it, or start a new run"
    )
    assert module.position == 0
    other = module_of(store, batch_size=9)
    other.load_state_dict(saved)
    assert other.position == 12


def test_other_data_is_refused(store: TokenStore, tmp_path: Path) -> None:
    changed = Split([Document("a.txt", "other " * 99)], [Document("b.txt", "text")])
    other = write_store(tmp_path / "store", changed, ByteTokenizer())
    with pytest.raises(UserError, match=rf"\(fingerprint {store.fingerprint} -> {other.fingerprint}\)"):
        module_of(other).load_state_dict(module_of(store).state_dict())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loaders_draw_nothing_from_the_global_generators(store: TokenStore, num_workers: int) -> None:
    """A resumed run makes its loaders anew: dropout after that must be as if it had not."""
    torch.manual_seed(0)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    module = module_of(store, num_workers=num_workers)
    for loader in (module.train_dataloader(), module.val_dataloader()):
        next(iter(loader))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_waiting_is_counted_and_training_is_not(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of our own: a batch takes a second to read, a step a hundred."""
    clock = 0.0
    read = WindowDataset.__getitems__

    def slow(dataset: WindowDataset, indices: Any) -> dict[str, Tensor]:
        nonlocal clock
        clock += 1
        return read(dataset, indices)

    monkeypatch.setattr(WindowDataset, "__getitems__", slow)
    monkeypatch.setattr("slm.data.batches.datamodule.time", SimpleNamespace(perf_counter=lambda: clock))
    module = module_of(store)
    assert module.waited_s == 0
    for _ in islice(module.train_dataloader(), 3):
        clock += 100
    assert module.waited_s == 3


def test_a_split_of_no_tokens_is_said_in_one_line(tmp_path: Path) -> None:
    """A tokenizer that drops white space (BERT's) makes no token of a held-out part that is nothing else."""

    class Stripping(ByteTokenizer):
        def encode(self, text: str) -> list[int]:
            return super().encode(text.strip())

    split = split_documents([Document("a.txt", "text" + " " * 4)], 0.5)
    store = write_store(tmp_path / "store", split, Stripping())
    with pytest.raises(UserError, match=r"\Adata: a split of 0 token\(s\) has nothing to predict; [^\n]*\Z"):
        module_of(store).val_dataloader()


def test_a_run_on_too_little_text_writes_nothing(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """It left a folder with a configuration and no step; of no training token at all it divided by zero."""
    (tmp_path / "short.txt").write_text("ab")
    outcome = run_cli("train", *tiny, "data.path=short.txt", "data.val_fraction=0.5", "run_dir=run")
    assert (outcome.status, outcome.err) == (
        2,
        "slm-train: data: a split of 1 token(s) has nothing to predict; give more text\n",
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["short.txt"]
