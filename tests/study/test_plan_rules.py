"""The parts of a plan that are arithmetic: a heap's holes, budgets, sizes, files."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from slm.errors import UserError
from slm.study.plan.allocations import Event
from slm.study.plan.budget import Budget, batch_tokens, budget_of
from slm.study.plan.disk import files_at_most
from slm.study.plan.fit import room_of
from slm.study.plan.heap import held_at_most
from slm.training.config import TrainerConfig

MIB = 2**20


def events(*words: str) -> list[Event]:
    """``a4`` allocates 4 MiB as block a, ``-a`` frees it."""
    found = []
    for word in words:
        free = word.startswith("-")
        name = word[1] if free else word[0]
        found.append(Event(ord(name), None if free else int(word[1:]) * MIB))
    return found


@pytest.mark.parametrize(
    ("words", "mib"),
    [
        ("a4 b4", 8),
        ("a4 -a b4", 4),  # the same size again
        ("a4 b1 -a c2 d1", 5),  # two in one hole
        ("a4 b1 -a c5", 10),  # too large for it: on top
        ("a2 b2 c1 -a -b d4", 5),  # two holes side by side are one
        ("a2 b4 -b c5", 7),  # a hole at the top grows
        ("a4 b1 c2 d1 -a -c e2", 8),  # the smallest that serves: 4 stay whole …
        ("a4 b1 c2 d1 -a -c e2 f4", 8),  # … for this
        ("a40 -a b4", 40),  # lies by itself and goes back
        ("a40 -a b4 c40", 44),
    ],
)
def test_a_heap_grows_by_what_fits_no_hole(words: str, mib: int) -> None:
    held = held_at_most(events(*words.split()), mapped_from=32 * MIB, more=False)
    assert mib * MIB <= held < mib * MIB + 1024


@pytest.mark.parametrize(
    ("words", "mib"),
    [
        ("a4 -a b4", 4),  # at the top it grows by what is lacking
        ("a4 b1 -a c4", 9),  # the hole is a cache line too short
        ("a4 b1 -a c3", 5),
        ("a4 b2 c1 d1 -a -b e6", 14),  # of two neighbours, too …
        ("a4 b2 c1 d1 -a -b e5", 8),  # … which hold what is smaller
        ("a4 b1 c2 d1 -b -c e2", 10),  # a small object lies ahead of the third, so that they are not one
    ],
)
def test_a_heap_of_old_seeks_more_than_it_needs(words: str, mib: int) -> None:
    """Before glibc 2.38: a hole does not take a block of its own size again."""
    held = held_at_most(events(*words.split()), mapped_from=32 * MIB, more=True)
    assert mib * MIB <= held < mib * MIB + 1024


def test_batch_by_deepseeks_own_figure() -> None:
    """Bi et al. 2024, section 3.2: 1e20 FLOPs and about a million tokens a step; it grows by 2.12 a tenfold."""
    assert batch_tokens(1e20) == pytest.approx(1.02e6, rel=0.01)
    assert batch_tokens(1e18) / batch_tokens(1e17) == pytest.approx(10**0.3271)


@pytest.mark.parametrize(
    ("typed", "budget"),
    [
        ("30min", Budget(1800, "s")),
        ("1h30m", Budget(5400, "s")),
        ("1e15", Budget(1e15, "FLOPs")),
        (1e15, Budget(1e15, "FLOPs")),
        (None, None),
    ],
)
def test_budgets_as_they_are_typed(typed: object, budget: Budget | None) -> None:
    assert budget_of(typed) == budget


@pytest.mark.parametrize("typed", ["soon", "0", "-1e15", 0, True, math.inf, "30 parsecs"])
def test_what_is_no_budget(typed: object) -> None:
    with pytest.raises(UserError, match="budget must be"):
        budget_of(typed)


@pytest.mark.parametrize(("typed", "room"), [("24GiB", 24 * 2**30), ("8GB", 8 * 10**9), ("500 mb", 5 * 10**8), (7, 7)])
def test_sizes_as_they_are_typed(typed: object, room: int) -> None:
    assert room_of(typed) == room


@pytest.mark.parametrize("typed", ["much", "GiB", "-1GB", "0", True])
def test_what_is_no_size(typed: object) -> None:
    with pytest.raises(UserError, match="fit must be a size of memory"):
        room_of(typed)


@pytest.mark.parametrize(
    ("steps", "save", "val", "keep", "files"),
    [
        (500, 250, 250, 2, 3),  # 250 and 500, and the one that is being written
        (6, 2, 3, 2, 4),  # 4 and 6, the best of another step, the one being written
        (5, 2, 5, 2, 4),  # 2 and 4, 5 as the last
        (3, 5, 5, 2, 2),  # the last
        (100, 10, 10, 0, 11),  # all of them
    ],
)
def test_checkpoints_at_a_time(steps: int, save: int, val: int, keep: int, files: int) -> None:
    trainer = TrainerConfig(max_steps=steps, batch_size=1, log_every=1, val_every=val, save_every=save, keep=keep)
    assert files_at_most(trainer, hours=1) == files


def test_the_checkpoint_before_the_fall_is_another() -> None:
    trainer = TrainerConfig(max_steps=500, batch_size=1, log_every=1, val_every=250, save_every=250, keep=2)
    assert files_at_most(trainer, hours=1, falls_at=300) == 4
    assert files_at_most(trainer, hours=1, falls_at=250) == 3  # one of those that are kept


def test_checkpoints_of_save_points_are_counted_once() -> None:
    """Of steps 1, 2, 4, 8 and 16, 16 is among the newest two of every four; a step behind the end is never reached."""
    trainer = TrainerConfig(max_steps=17, batch_size=1, log_every=1, val_every=17, save_every=4, save_at="log2")
    without = files_at_most(replace(trainer, save_at=None), hours=1)
    assert files_at_most(trainer, hours=1) == without + 4
    assert files_at_most(replace(trainer, save_at=(3, 12, 17, 18)), hours=1) == without + 1
