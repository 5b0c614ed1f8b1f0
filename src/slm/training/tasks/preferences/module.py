"""The LightningModule of preference tuning: pairs to losses, and what the model thinks of them."""

from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from slm.models.contract import CausalLM
from slm.notices import notice
from slm.training.figures import BatchLoss
from slm.training.lit_module import Batch, LanguageModelModule
from slm.training.tasks.preferences.losses import PairLogProbs, PairLosses, PreferenceLoss
from slm.training.tasks.preferences.reference import answer_log_probs


class PreferenceModule(LanguageModelModule):
    """Trains on batches of pairs (`PairDataset`). Every figure is a mean over pairs, each of the same weight whatever
    its length: the loss; how often the chosen answer's reward is the larger (equal ones count half); how often it is
    likelier than the rejected one; rewards and their difference; log-probabilities per token, in nats. The `settings`
    are those of `LanguageModelModule`."""

    figure_names: ClassVar[tuple[str, ...]] = (
        *("loss", "accuracy", "likelier", "reward_chosen", "reward_rejected", "margin"),
        *("log_prob_chosen", "log_prob_rejected"),
    )

    def __init__(self, model: nn.Module, preference: PreferenceLoss, sft_weight: float = 0.0, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.preference = preference
        self.sft_weight = sft_weight  # of the chosen answers' NLL per token beside the loss (Pang et al. 2024, eq. 1)

    def batch_loss(self, batch: Batch) -> BatchLoss:
        chosen, rejected = answer_log_probs(cast(CausalLM, self.model), batch).chunk(2)
        chosen_tokens, rejected_tokens = (batch["labels"] >= 0).sum(dim=1).chunk(2)
        reference = batch["reference"].chunk(2) if "reference" in batch else (None, None)
        pairs = PairLogProbs(chosen, rejected, chosen_tokens, rejected_tokens, *reference)
        found = self.preference(pairs)
        losses = found.losses - self.sft_weight * pairs.chosen_mean
        return BatchLoss(losses.sum(), len(losses), _figures(losses, found, pairs))

    def most_counted(self) -> int:
        """Pairs of a micro-batch, of which all have as many."""
        return int(self.trainer.datamodule.batch_size)  # type: ignore[attr-defined]

    def validation_figures(self) -> dict[str, float]:
        (scored,) = self.scored.values()
        return dict(zip(self.figure_names, scored.means, strict=True))

    def scored_counts(self) -> dict[str, int]:
        return {}  # the report of the data has the pairs


@torch.no_grad()
def _figures(losses: Tensor, found: PairLosses, pairs: PairLogProbs) -> Tensor:
    """(B, k) in the order of `PreferenceModule.figure_names`."""
    margin = found.chosen_rewards - found.rejected_rewards
    right, likelier = (0.5 * (gap.sign() + 1) for gap in (margin, pairs.chosen - pairs.rejected))
    rewards, per_token = (found.chosen_rewards, found.rejected_rewards), (pairs.chosen_mean, pairs.rejected_mean)
    columns = (losses, right, likelier, *rewards, margin, *per_token)
    return torch.stack([column.float() for column in columns], dim=1)


def without_dropout(task: str, module: Callable[..., LanguageModelModule]) -> Callable[..., LanguageModelModule]:
    """What makes the `module`, with every probability of dropout in its model 0: two answers, or a model and its
    reference, are compared, and it would be noise in each difference."""

    def made(model: nn.Module, **settings: Any) -> LanguageModelModule:
        was_on = False
        for part in model.modules():
            name = "p" if isinstance(part, _DropoutNd) else "dropout"  # of an attention, which gives it to a function
            if isinstance(p := getattr(part, name, None), float) and p > 0:
                setattr(part, name, 0.0)
                was_on = True
        if was_on:
            notice(
                f"task={task}: dropout is off; answers are compared with each other, and with a reference that has none"
            )
        return module(model, **settings)

    return made
