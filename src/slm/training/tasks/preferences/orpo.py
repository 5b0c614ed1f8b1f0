"""Odds ratio preference optimization, without reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from slm.registry import register_preference_loss
from slm.schema import PositiveFloat
from slm.training.tasks.preferences.pair_loss import PairLogProbs, PairLosses

_LARGEST = -1e-6  # of a log-probability: beyond, the odds leave what fp32 can tell


@register_preference_loss("orpo")
@dataclass(frozen=True)
class ORPO:
    """The chosen answer's NLL per token, and ``-beta log sigmoid(log odds of the chosen - of the rejected)``
    (Hong et al. 2024, eq. 6 and 7); the odds are those of the probability per token, ``p / (1 - p)``.

    Attributes:
        beta: weight of the second term, the paper's lambda.
    """

    needs_reference: ClassVar[bool] = False
    supervised: ClassVar[bool] = True  # the paper's rate, 8e-6 at width 4,096, is SFT's
    beta: PositiveFloat = 0.1

    def __call__(self, pairs: PairLogProbs) -> PairLosses:
        """See `PreferenceLoss`; a reward is ``beta`` times the log-probability per token."""
        chosen, rejected = pairs.chosen_mean, pairs.rejected_mean
        ratio = _log_odds(chosen) - _log_odds(rejected)
        return PairLosses(-chosen - self.beta * logsigmoid(ratio), self.beta * chosen, self.beta * rejected)


def _log_odds(log_prob: Tensor) -> Tensor:
    log_prob = log_prob.clamp(max=_LARGEST)
    return log_prob - torch.log(-torch.expm1(log_prob))
