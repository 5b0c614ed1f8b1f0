"""KTO: the loss of answers that are good or bad by themselves, and the LightningModule that trains on them."""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from slm.models.contract import CausalLM
from slm.schema import NonNegativeFloat, PositiveFloat
from slm.training.figures import BatchLoss
from slm.training.lit_module import Batch, LanguageModelModule
from slm.training.tasks.preferences.reference import answer_log_probs


@dataclass(frozen=True)
class KTO:
    """``weight * (1 - sigmoid(beta * (gain - z0)))`` of a desirable answer, of an undesirable one with ``z0 - gain``
    (Ethayarajh et al. 2024, eq. 7 and 8, less the constant weight)."""

    beta: PositiveFloat = 0.1  # how dear it is to leave the reference
    desirable_weight: NonNegativeFloat = 1.0
    undesirable_weight: NonNegativeFloat = 1.0

    def __call__(self, gains: Tensor, is_desirable: Tensor, z0: Tensor) -> Tensor:
        """Losses (B,) of answers that are by `gains` (B,), in nats, likelier than to the reference; `z0`, a scalar, is
        what they are compared with."""
        sign = torch.where(is_desirable, 1.0, -1.0)
        weight = torch.where(is_desirable, self.desirable_weight, self.undesirable_weight)
        return weight * torch.sigmoid(self.beta * sign * (z0 - gains))


class KTOModule(LanguageModelModule):
    """Trains on batches of an `UnpairedDataset`. Every answer weighs the same, whatever its length. The reference point
    ``z0`` is how much likelier answers to other prompts are than to the reference, the mean over the micro-batches of
    all ranks, at least 0 and without a gradient. Figures are means over answers: the loss, z0; how many rewards, which
    are beta times the gain, have the sign of their label (0 counts half); of desirable and of undesirable answers apart
    the reward and the log-probability per token, in nats."""

    figure_names: ClassVar[tuple[str, ...]] = (
        *("loss", "z0", "accuracy", "desirable", "reward_desirable", "reward_undesirable"),
        *("log_prob_desirable", "log_prob_undesirable"),
    )

    def __init__(self, model: nn.Module, kto: KTO, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.kto = kto

    def batch_loss(self, batch: Batch) -> BatchLoss:
        model = cast(CausalLM, self.model)
        own, others = ({n: batch[n].chunk(2)[half] for n in ("input_ids", "labels", "reference")} for half in (0, 1))
        with torch.no_grad():
            of_others = answer_log_probs(model, others) - others["reference"]
        log_probs = answer_log_probs(model, own)
        n_tokens = (own["labels"] >= 0).sum(dim=1)
        gains, is_desirable = log_probs - own["reference"], batch["is_desirable"]
        z0 = self._mean_over_ranks(of_others, n_tokens > 0).clamp(min=0)
        losses = self.kto(gains, is_desirable, z0)
        with torch.no_grad():
            rewards, per_token = self.kto.beta * gains, log_probs / n_tokens.clamp(min=1)
            right = 0.5 * (1 + torch.where(is_desirable, 1.0, -1.0) * rewards.sign())
            kinds = (is_desirable.float(), (~is_desirable).float())
            by_kind = (kind * figure for figure in (rewards, per_token) for kind in kinds)
            columns = (losses, z0.expand_as(losses), right, kinds[0], *by_kind)
            figures = torch.stack([column.float() for column in columns], dim=1)
        return BatchLoss(losses.sum(), len(losses), figures)

    def _mean_over_ranks(self, gains: Tensor, counts: Tensor) -> Tensor:
        """Of those that count; a batch that evens out the ranks has none."""
        total = torch.stack([(gains * counts).sum(), counts.sum()])
        if self.trainer.world_size > 1:
            total = cast(Tensor, self.all_gather(total)).sum(dim=0)
        return total[0] / total[1].clamp(min=1)

    def most_counted(self) -> int:
        """Answers of a micro-batch, of which all have as many."""
        return int(self.trainer.datamodule.batch_size)  # type: ignore[attr-defined]

    def take_train_metrics(self) -> dict[str, float]:
        figures = super().take_train_metrics()
        return _of_each_kind(figures, "train/")

    def validation_figures(self) -> dict[str, float]:
        (scored,) = self.scored.values()
        return _of_each_kind(dict(zip(self.figure_names, scored.means, strict=True)))

    def scored_counts(self) -> dict[str, int]:
        return {}  # the report of the data has the answers


def _of_each_kind(figures: dict[str, float], prefix: str = "") -> dict[str, float]:
    """Means over answers of a kind, of sums that were divided by all answers; of a kind of which there is none, none.
    ``margin`` is by how much the one reward is the larger."""
    share = figures[f"{prefix}desirable"]
    found = dict(figures)
    for kind, of_all in (("desirable", share), ("undesirable", 1 - share)):
        for name in (f"{prefix}reward_{kind}", f"{prefix}log_prob_{kind}"):
            found[name] = figures[name] / of_all if of_all else float("nan")
    found[f"{prefix}margin"] = found[f"{prefix}reward_desirable"] - found[f"{prefix}reward_undesirable"]
    return found
