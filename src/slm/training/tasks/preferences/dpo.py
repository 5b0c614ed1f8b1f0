"""Direct preference optimization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Lt
from pydantic import Strict
from torch.nn.functional import logsigmoid

from slm.registry import register_preference_loss
from slm.schema import PositiveFloat
from slm.training.tasks.preferences.pair_loss import PairLogProbs, PairLosses


@register_preference_loss("dpo")
@dataclass(frozen=True)
class DPO:
    """``-log sigmoid(beta * (gain of the chosen - gain of the rejected))`` (Rafailov et al. 2023, eq. 7).

    Attributes:
        beta: how dear it is to leave the reference.
        label_smoothing: share of pairs that may be labelled the wrong way round (Mitchell 2023, "conservative DPO").
    """

    needs_reference: ClassVar[bool] = True
    beta: PositiveFloat = 0.1
    label_smoothing: Annotated[float, Strict(), Ge(0), Lt(0.5)] = 0.0

    def __call__(self, pairs: PairLogProbs) -> PairLosses:
        """See `PreferenceLoss`; a reward is ``beta`` times the gain."""
        chosen, rejected = self.beta * pairs.chosen_gain, self.beta * pairs.rejected_gain
        right, wrong = logsigmoid(chosen - rejected), logsigmoid(rejected - chosen)
        losses = -(1 - self.label_smoothing) * right - self.label_smoothing * wrong
        return PairLosses(losses, chosen, rejected)
