"""Simple preference optimization, without reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import logsigmoid

from slm.registry import register_preference_loss
from slm.schema import NonNegativeFloat, PositiveFloat
from slm.training.tasks.preferences.pair_loss import PairLogProbs, PairLosses


@register_preference_loss("simpo")
@dataclass(frozen=True)
class SimPO:
    """``-log sigmoid(reward of the chosen - reward of the rejected - gamma)`` (Meng et al. 2024, eq. 6).

    Attributes:
        beta: a reward is ``beta`` times the answer's log-probability per token.
        gamma: by how much the chosen one's is to be larger.
    """

    needs_reference: ClassVar[bool] = False
    beta: PositiveFloat = 2.0
    gamma: NonNegativeFloat = 1.0

    def __call__(self, pairs: PairLogProbs) -> PairLosses:
        """See `PreferenceLoss`."""
        chosen, rejected = self.beta * pairs.chosen_mean, self.beta * pairs.rejected_mean
        return PairLosses(-logsigmoid(chosen - rejected - self.gamma), chosen, rejected)
