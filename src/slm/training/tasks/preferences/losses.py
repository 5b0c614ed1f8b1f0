"""Preference losses: pure functions of what a model, and a reference, think of the answers of pairs."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple, Protocol

import torch
from annotated_types import Ge, Lt
from pydantic import Strict
from torch import Tensor
from torch.nn.functional import logsigmoid

from slm.registry import register_preference_loss
from slm.schema import Flag, NonNegativeFloat, PositiveFloat

_LARGEST = -1e-6  # of a log-probability: beyond, the odds leave what fp32 can tell


@dataclass(frozen=True)
class PairLogProbs:
    """What a model and the reference think of the answers of B pairs: tensors (B,), log-probabilities in nats."""

    chosen: Tensor  # of the whole answers: sums over their tokens
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    reference_chosen: Tensor | None = None  # the sums of the model that training began with; None where there is none
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


class PairLosses(NamedTuple):
    """(B,) each: what is to be made small, and what the loss takes for the worth of each answer."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


class PreferenceLoss(Protocol):
    """A callable whose settings are its constructor's arguments, with their ranges as types. Where a class says
    ``supervised = True`` it learns the chosen answers first of all, and takes SFT's learning rate."""

    needs_reference: ClassVar[bool]

    def __call__(self, pairs: PairLogProbs) -> PairLosses:
        """The loss of each pair."""


@register_preference_loss("dpo")
@dataclass(frozen=True)
class DPO:
    """``-log sigmoid(beta * (gain of the chosen - gain of the rejected))`` (Rafailov et al. 2023, eq. 7); a reward is
    ``beta`` times the gain."""

    needs_reference: ClassVar[bool] = True
    beta: PositiveFloat = 0.1  # how dear it is to leave the reference
    # share of pairs that may be labelled the wrong way round (Mitchell 2023, "conservative DPO")
    label_smoothing: Annotated[float, Strict(), Ge(0), Lt(0.5)] = 0.0

    def __call__(self, pairs: PairLogProbs) -> PairLosses:
        chosen, rejected = self.beta * pairs.chosen_gain, self.beta * pairs.rejected_gain
        right, wrong = logsigmoid(chosen - rejected), logsigmoid(rejected - chosen)
        losses = -(1 - self.label_smoothing) * right - self.label_smoothing * wrong
        return PairLosses(losses, chosen, rejected)


@register_preference_loss("ipo")
@dataclass(frozen=True)
class IPO:
    """``(gain of the chosen - gain of the rejected - 1 / (2 beta))^2`` (Azar et al. 2023, eq. 17): a margin, no more. A
    reward is ``beta`` times the gain."""

    needs_reference: ClassVar[bool] = True
    beta: PositiveFloat = 0.1  # the paper's tau
    # gains per token, as libraries have it, so that long answers do not count more; the paper has whole answers
    per_token: Flag = True

    def __call__(self, pairs: PairLogProbs) -> PairLosses:
        chosen, rejected = pairs.chosen_gain, pairs.rejected_gain
        if self.per_token:
            chosen, rejected = chosen / pairs.chosen_tokens, rejected / pairs.rejected_tokens
        losses = (chosen - rejected - 1 / (2 * self.beta)).square()
        return PairLosses(losses, self.beta * chosen, self.beta * rejected)


@register_preference_loss("orpo")
@dataclass(frozen=True)
class ORPO:
    """The chosen answer's NLL per token, and ``-beta log sigmoid(log odds of the chosen - of the rejected)``
    (Hong et al. 2024, eq. 6 and 7); the odds are those of the probability per token, ``p / (1 - p)``. A reward is
    ``beta`` times the log-probability per token."""

    needs_reference: ClassVar[bool] = False
    supervised: ClassVar[bool] = True  # the paper's rate, 8e-6 at width 4,096, is SFT's
    beta: PositiveFloat = 0.1  # weight of the second term, the paper's lambda

    def __call__(self, pairs: PairLogProbs) -> PairLosses:
        chosen, rejected = pairs.chosen_mean, pairs.rejected_mean
        ratio = _log_odds(chosen) - _log_odds(rejected)
        return PairLosses(-chosen - self.beta * logsigmoid(ratio), self.beta * chosen, self.beta * rejected)


def _log_odds(log_prob: Tensor) -> Tensor:
    log_prob = log_prob.clamp(max=_LARGEST)
    return log_prob - torch.log(-torch.expm1(log_prob))


@register_preference_loss("simpo")
@dataclass(frozen=True)
class SimPO:
    """``-log sigmoid(reward of the chosen - reward of the rejected - gamma)`` (Meng et al. 2024, eq. 6)."""

    needs_reference: ClassVar[bool] = False
    beta: PositiveFloat = 2.0  # a reward is so many times the answer's log-probability per token
    gamma: NonNegativeFloat = 1.0  # by how much the chosen one's is to be larger

    def __call__(self, pairs: PairLogProbs) -> PairLosses:
        chosen, rejected = self.beta * pairs.chosen_mean, self.beta * pairs.rejected_mean
        return PairLosses(-logsigmoid(chosen - rejected - self.gamma), chosen, rejected)


class Likelihood:
    """For scoring a model whose beginning is not at hand: rewards are log-probabilities of whole answers, and the loss
    is the chosen answer's NLL per token. To be trained on there are the losses of the registry."""

    needs_reference: ClassVar[bool] = False

    def __call__(self, pairs: PairLogProbs) -> PairLosses:
        return PairLosses(-pairs.chosen_mean, pairs.chosen, pairs.rejected)
