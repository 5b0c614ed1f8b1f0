"""trainer.save_at in words: the same states kept whether a run is stopped, in passes or over several batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from slm.errors import UserError
from slm.training.config import trainer_config
from slm.training.save_points import CHALLENGE_POINTS, WordPoints, in_short, save_points_of, words_in


def test_points_of_the_challenge() -> None:
    """Its pipeline's list of revisions, of both tracks."""
    names = [in_short(words) for words in CHALLENGE_POINTS]
    small = [f"{n}M" for n in range(1, 10)] + [f"{10 * n}M" for n in range(1, 11)]
    assert names == small + [f"{100 * n}M" for n in range(2, 11)]
    assert [words_in(name) for name in names] == list(CHALLENGE_POINTS)
    assert [in_short(words) for words in (7, 1500, 250_000, 1_500_000)] == ["7", "1500", "250k", "1500k"]


def test_a_point_is_reached_once_and_the_end_of_a_run_may_be_a_little_short() -> None:
    points = WordPoints((10, 20, 30, 100))
    assert points.reached(0, 9) == []
    assert points.reached(9, 10) == [10]
    assert points.reached(10, 15) == []
    assert points.reached(5, 35) == [10, 20, 30]
    assert points.reached(90, 96, is_end=True) == [100]
    assert points.reached(90, 94, is_end=True) == []
    assert points.reached(96, 100, is_end=True) == [100]


@pytest.mark.parametrize(
    ("value", "points"),
    [("words", CHALLENGE_POINTS), ({"words": ["1M", 500, "250k", "1M"]}, (500, 250_000, 1_000_000))],
)
def test_what_names_words(value: object, points: tuple[int, ...]) -> None:
    assert save_points_of(value) == WordPoints(points)


@pytest.mark.parametrize("value", [{"words": []}, {"words": "1M"}, {"words": ["1G"]}, {"words": [0]}, {"steps": [1]}])
def test_what_names_none(value: object) -> None:
    counts = {"max_steps": 9, "batch_size": 1, "log_every": 1, "val_every": 1, "save_every": 1}
    with pytest.raises(UserError, match=r"trainer\.save_at: must be log2 .*; got"):
        trainer_config({**counts, "save_at": value})


def words_of(run: Path) -> dict[str, tuple[int, int]]:
    """Name -> step and words of each state that was kept."""
    files = sorted((run / "checkpoints").glob("words_*.ckpt"))
    states = {file.stem: torch.load(file, weights_only=True) for file in files}
    return {name: (state["global_step"], state["words"]) for name, state in states.items()}


TEXT = " ".join(f"one two  {'x' * (i % 9)}\nfour\u00a0five été" for i in range(40))
POINTS = "trainer.save_at={words: [100, 250, 350, 10k]}"


def test_states_by_words_are_those_of_an_unbroken_run(
    train_tiny: Callable[..., Path], tmp_path: Path, metrics_of: Callable[..., Any], run_cli: Callable[..., Any]
) -> None:
    """Over more than two passes, in parts, with accumulated batches: the first step that has read so many words."""
    (tmp_path / "small.txt").write_text(TEXT, encoding="utf-8")
    settings = (
        "data.path=small.txt", "data.val_fraction=0.2", "trainer.batch_size=2", "trainer.global_batch_size=4",
        "trainer.max_steps=null", "trainer.max_epochs=2.5", "trainer.val_every=5", "trainer.save_every=50", POINTS,
    )  # fmt: skip
    run = train_tiny("whole", *settings)
    kept = words_of(run)
    assert list(kept) == ["words_100", "words_250", "words_350"]
    rows = {int(row["step"]): int(float(row["train/words"])) for row in metrics_of(run) if row["train/words"]}
    for name, (step, seen) in kept.items():
        assert rows[step] == seen >= int(name.removeprefix("words_")) > rows.get(step - 1, 0)
    parts = train_tiny("parts", *settings, "stop_after=4")
    (parts / "checkpoints" / "words_10k.ckpt").touch()  # as if it had been there and was gone back in
    assert run_cli("train", "resume=parts").status == 0
    assert words_of(parts) == kept
    for name in kept:
        ours, theirs = (torch.load(one / "checkpoints" / f"{name}.ckpt", weights_only=True) for one in (run, parts))
        assert all(torch.equal(tensor, theirs["state_dict"][key]) for key, tensor in ours["state_dict"].items())


def test_more_passes_than_the_challenge_allows(run_cli: Callable[..., Any], tiny: tuple[str, ...]) -> None:
    refused = run_cli("train", *tiny, "trainer.most_passes=10", "trainer.max_steps=1000000")
    assert refused.status == 2
    assert "passes over the data, more than trainer.most_passes=10" in refused.err


def test_words_of_your_own_where_an_experiment_names_a_choice(run_cli: Callable[..., Any]) -> None:
    """Beside another mistake ``{words: …}`` was called one, as if the choice were a group of settings."""
    typed = ("experiment=babylm_strict_small", "data.path=x", "trainer.save_at={words: [5]}", "trainer.max_stepz=3")
    refused = run_cli("train", *typed)
    assert refused.status == 2
    assert "unknown key 'trainer.max_stepz'" in refused.err
    assert "trainer.save_at.words" not in refused.err
