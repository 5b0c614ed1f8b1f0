"""Identity preference optimization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from slm.registry import register_preference_loss
from slm.schema import Flag, PositiveFloat
from slm.training.tasks.preferences.pair_loss import PairLogProbs, PairLosses


@register_preference_loss("ipo")
@dataclass(frozen=True)
class IPO:
    """``(gain of the chosen - gain of the rejected - 1 / (2 beta))^2`` (Azar et al. 2023, eq. 17): a margin, no more.

    Attributes:
        beta: the paper's tau.
        per_token: of gains per token, as libraries have it, so that long answers do not count more; False: of whole
            answers, as the paper has it.
    """

    needs_reference: ClassVar[bool] = True
    beta: PositiveFloat = 0.1
    per_token: Flag = True

    def __call__(self, pairs: PairLogProbs) -> PairLosses:
        """See `PreferenceLoss`; a reward is ``beta`` times the gain."""
        chosen, rejected = pairs.chosen_gain, pairs.rejected_gain
        if self.per_token:
            chosen, rejected = chosen / pairs.chosen_tokens, rejected / pairs.rejected_tokens
        losses = (chosen - rejected - 1 / (2 * self.beta)).square()
        return PairLosses(losses, self.beta * chosen, self.beta * rejected)
