"""What a preference loss is made of, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor


@dataclass(frozen=True)
class PairLogProbs:
    """What a model and the reference think of the answers of B pairs: tensors (B,), log-probabilities in nats.

    Attributes:
        chosen, rejected: of the whole answers: sums over their tokens.
        chosen_tokens, rejected_tokens: how many tokens these are.
        reference_chosen, reference_rejected: the sums of the model that training began with; of no use, and None, to
            a loss without reference.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    reference_chosen: Tensor | None = None
    reference_rejected: Tensor | None = None

    @property
    def chosen_gain(self) -> Tensor:
        """How much likelier the chosen answer is than to the reference."""
        assert self.reference_chosen is not None
        return self.chosen - self.reference_chosen

    @property
    def rejected_gain(self) -> Tensor:
        """How much likelier the rejected answer is than to the reference."""
        assert self.reference_rejected is not None
        return self.rejected - self.reference_rejected

    @property
    def chosen_mean(self) -> Tensor:
        """Per token."""
        return self.chosen / self.chosen_tokens

    @property
    def rejected_mean(self) -> Tensor:
        """Per token."""
        return self.rejected / self.rejected_tokens


@dataclass(frozen=True)
class PairLosses:
    """Attributes:
    losses: (B,), to be made small.
    chosen_rewards, rejected_rewards: (B,), what the loss takes for the worth of each answer.
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


class PreferenceLoss(Protocol):
    """A callable whose settings are its constructor's arguments, with their ranges as types.

    Where a class says ``supervised = True`` it learns the chosen answers first of all, and takes SFT's learning rate.
    """

    needs_reference: ClassVar[bool]

    def __call__(self, pairs: PairLogProbs) -> PairLosses:
        """The loss of each pair."""
