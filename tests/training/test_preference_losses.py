"""Preference losses against the papers' formulas, written out in Python's own floats."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from slm.data.config import CorpusConfig
from slm.errors import UserError
from slm.registry import PREFERENCE_LOSSES
from slm.training.tasks.dpo import Dpo
from slm.training.tasks.preferences.losses import PairLogProbs
from slm.training.tasks.task import task_of

CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED = -12.0, -9.0, -14.5, -8.0
N_CHOSEN, N_REJECTED = 6, 3
PAIRS = CorpusConfig("pairs", "unused")


def pairs(chosen: float = CHOSEN, rejected: float = REJECTED, swapped: bool = False) -> PairLogProbs:
    of_chosen = (chosen, N_CHOSEN, REF_CHOSEN)
    of_rejected = (rejected, N_REJECTED, REF_REJECTED)
    columns = zip(*((of_rejected, of_chosen) if swapped else (of_chosen, of_rejected)), strict=True)
    (c, r), (nc, nr), (rc, rr) = (
        (torch.tensor([one], dtype=torch.float64), torch.tensor([other], dtype=torch.float64)) for one, other in columns
    )
    return PairLogProbs(c.requires_grad_(), r.requires_grad_(), nc, nr, rc, rr)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


GAIN = (CHOSEN - REF_CHOSEN) - (REJECTED - REF_REJECTED)
PER_TOKEN = (CHOSEN - REF_CHOSEN) / N_CHOSEN - (REJECTED - REF_REJECTED) / N_REJECTED
P, Q = math.exp(CHOSEN / N_CHOSEN), math.exp(REJECTED / N_REJECTED)


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("dpo", {}, -math.log(sigmoid(0.1 * GAIN))),
        (
            "dpo",
            {"beta": 0.5, "label_smoothing": 0.2},
            -0.8 * math.log(sigmoid(0.5 * GAIN)) - 0.2 * math.log(sigmoid(-0.5 * GAIN)),
        ),
        ("ipo", {"beta": 0.2, "per_token": False}, (GAIN - 1 / 0.4) ** 2),
        ("ipo", {}, (PER_TOKEN - 5) ** 2),
        ("simpo", {}, -math.log(sigmoid(2 * (CHOSEN / N_CHOSEN - REJECTED / N_REJECTED) - 1))),
        ("orpo", {"beta": 0.3}, -CHOSEN / N_CHOSEN - 0.3 * math.log(sigmoid(math.log(P * (1 - Q) / (Q * (1 - P)))))),
    ],
)
def test_formulas(kind: str, settings: dict[str, Any], expected: float) -> None:
    assert PREFERENCE_LOSSES.get(kind)(**settings)(pairs()).losses.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", PREFERENCE_LOSSES.names())
def test_a_step_down_prefers_the_chosen(kind: str) -> None:
    """The loss falls as the chosen answer gets likelier and rises as the rejected one does; finite at any distance."""
    loss = PREFERENCE_LOSSES.get(kind)()
    given = pairs()
    loss(given).losses.sum().backward()
    assert given.chosen.grad.item() < 0 < given.rejected.grad.item()  # type: ignore[union-attr]
    for chosen, rejected in ((-1e-9, -500.0), (-500.0, -1e-9)):
        extreme = pairs(chosen, rejected)
        found = loss(extreme)
        found.losses.sum().backward()
        assert torch.isfinite(torch.stack([found.losses, extreme.chosen.grad, extreme.rejected.grad])).all()  # type: ignore[list-item]


@pytest.mark.parametrize("kind", ["dpo", "ipo", "simpo"])
def test_answers_swapped_swap_the_rewards(kind: str) -> None:
    loss = PREFERENCE_LOSSES.get(kind)()
    one, other = loss(pairs()), loss(pairs(swapped=True))
    assert torch.equal(one.chosen_rewards, other.rejected_rewards)
    assert torch.equal(one.rejected_rewards, other.chosen_rewards)


def test_nothing_is_learnt_from_a_label_that_is_a_coin_toss() -> None:
    """With half of the pairs the wrong way round the best gain is none: DPO's derivative is 0 there, not elsewhere."""
    loss = PREFERENCE_LOSSES.get("dpo")(label_smoothing=0.4999999)
    even = pairs(REF_CHOSEN, REF_REJECTED)
    loss(even).losses.sum().backward()
    assert abs(even.chosen.grad.item()) < 1e-6  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "dpoo"}, "no preference loss is called 'dpoo'; did you mean 'dpo'?"),
        ({"gamma": 1.0}, "unknown key 'task.gamma' (allowed under 'task': beta, label_smoothing)"),
        ({"label_smoothing": 0.5}, "task.label_smoothing should be less than 0.5; got 0.5"),
        ({"beta": 0.0}, "task.beta should be greater than 0; got 0.0"),
        ({"too_long": "cut"}, "task.too_long should be 'drop' or 'cut_prompt'; got 'cut'"),
        ({"template": "chat"}, "no chat template is called 'chat'"),
        ({"kind": "dp"}, "no task is called 'dp'; did you mean 'dpo'?"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        task_of({"kind": "dpo", "loss": "dpo", "beta": None, **changes}).check(PAIRS)
    assert message in str(refused.value)


def test_null_is_the_losss_own() -> None:
    task = task_of({"kind": "dpo", "loss": "simpo", "beta": None, "gamma": 0.5})
    assert isinstance(task, Dpo)
    loss = PREFERENCE_LOSSES.get(task.loss)(**task.loss_settings)
    assert (loss.beta, loss.gamma) == (2.0, 0.5)
    with pytest.raises(
        UserError, match=r"task=dpo needs pairs of answers \(data=pairs data.path=…\); data.kind is text"
    ):
        task.check(CorpusConfig("text", "unused"))
