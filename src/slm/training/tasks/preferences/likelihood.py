"""Preference without a reference: an answer is worth what the model thinks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from slm.training.tasks.preferences.pair_loss import PairLogProbs, PairLosses


@dataclass(frozen=True)
class Likelihood:
    """For scoring a model whose beginning is not at hand: rewards are log-probabilities of whole answers, and the loss
    is the chosen answer's NLL per token. To be trained on there are the losses of the registry."""

    needs_reference: ClassVar[bool] = False

    def __call__(self, pairs: PairLogProbs) -> PairLosses:
        """See `PreferenceLoss`."""
        return PairLosses(-pairs.chosen_mean, pairs.chosen, pairs.rejected)
