"""The LightningModule of preference tuning: pairs to losses, and what the model thinks of them."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from slm.models.contract import CausalLM
from slm.training.exact_sum import ExactSum, joined
from slm.training.lit_module import Batch, LanguageModelModule
from slm.training.optim.left_out import contagious
from slm.training.step_figures import StepFigures
from slm.training.tasks.preferences.pair_loss import PairLogProbs, PairLosses, PreferenceLoss
from slm.training.tasks.preferences.reference import answer_log_probs

FIGURES = (
    "loss",
    "accuracy",
    "likelier",
    "reward_chosen",
    "reward_rejected",
    "margin",
    "log_prob_chosen",
    "log_prob_rejected",
)
"""Means over pairs: the loss; how often the chosen answer's reward is the larger (equal ones count half); how often it
is likelier than the rejected one; rewards and their difference; log-probabilities per token, in nats."""

_COUNTED = len(FIGURES) + 1
"""Their sums, and how many pairs they are of."""


class PreferenceModule(LanguageModelModule):
    """Trains on batches of pairs (`PairDataset`). Every figure is the mean over pairs: over all micro-batches and ranks
    of an optimizer step in training, over the whole split in validation.

    Args:
        model: a registered model.
        preference: the loss.
        sft_weight: of the chosen answers' NLL per token, added to the loss (Pang et al. 2024, eq. 1).
        settings: of `LanguageModelModule`.
    """

    def __init__(self, model: nn.Module, preference: PreferenceLoss, sft_weight: float = 0.0, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.preference = preference
        self.sft_weight = sft_weight
        self._step_sums = ExactSum(_COUNTED)
        self._step_pairs = 0
        self._logged = [0.0] * _COUNTED
        self._evaluated = ExactSum(_COUNTED)

    def pair_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of each pair, (B,), and its figures, (B, len(FIGURES)) without gradient."""
        sums = answer_log_probs(cast(CausalLM, self.model), batch)
        chosen, rejected = sums.chunk(2)
        chosen_tokens, rejected_tokens = (batch["labels"] >= 0).sum(dim=1).chunk(2)
        reference = batch["reference"].chunk(2) if "reference" in batch else (None, None)
        pairs = PairLogProbs(chosen, rejected, chosen_tokens, rejected_tokens, *reference)
        found = self.preference(pairs)
        losses = found.losses - self.sft_weight * pairs.chosen_mean
        return losses, _figures(losses, found, pairs)

    # ---- training ----

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of the pairs; all micro-batches have as many, so the mean over them is that over all pairs."""
        losses, figures = self.pair_step(batch)
        self._step_sums.add_rows(_counted(figures))
        self._step_pairs += len(losses)
        self._step_tokens += self._batch_tokens
        return contagious(losses.mean())

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Count the answers' tokens; every pair weighs the same, whatever its length."""
        self._step_valid = self._sum_over_ranks(self._step_tokens)

    def _take_step_count(self) -> int:
        pairs, self._step_pairs = self._step_pairs, 0
        return pairs

    def _add_to_log(self, figures: StepFigures) -> None:
        of_step = (figures.loss_sum, *figures.others)
        self._logged = [before + new for before, new in zip(self._logged, of_step, strict=True)]

    def take_train_metrics(self) -> dict[str, float]:
        """The figures over all ranks since the last call, as ``train/…``."""
        self._settle_rest()
        sums, self._logged = self._logged, [0.0] * _COUNTED
        return {f"train/{name}": value for name, value in self._means(sums).items()}

    # ---- validation ----

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._evaluated = ExactSum(_COUNTED)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add to the sums; a batch without an answer stands for none."""
        if self._batch_tokens:
            self._evaluated.add_rows(_counted(self.pair_step(batch)[1]))

    def on_validation_epoch_end(self) -> None:
        """The figures as ``val/…``, over the whole split and all ranks."""
        self.report_validation(self._means(joined(*self._evaluated.take().tolist())))

    # ---- state ----

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As for a language model, with the sums of a later log row."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["train_sums"]["figures"] = [self._sum_over_ranks(value) for value in self._logged]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The inverse of `on_save_checkpoint`."""
        super().on_load_checkpoint(checkpoint)
        self._logged = list(checkpoint["train_sums"]["figures"]) if self.trainer.is_global_zero else [0.0] * _COUNTED

    def _means(self, sums: list[float]) -> dict[str, float]:
        *totals, count = (self._sum_over_ranks(value) for value in sums)
        return {name: total / count if count else math.nan for name, total in zip(FIGURES, totals, strict=True)}


def _counted(figures: Tensor) -> Tensor:
    """(B, _COUNTED): a column of ones more, whose sum is how many pairs there are."""
    return torch.cat([figures, torch.ones_like(figures[:, :1])], dim=1)


@torch.no_grad()
def _figures(losses: Tensor, found: PairLosses, pairs: PairLogProbs) -> Tensor:
    margin = found.chosen_rewards - found.rejected_rewards
    columns = (
        losses,
        0.5 * (margin.sign() + 1),
        0.5 * ((pairs.chosen - pairs.rejected).sign() + 1),
        found.chosen_rewards,
        found.rejected_rewards,
        margin,
        pairs.chosen_mean,
        pairs.rejected_mean,
    )
    return torch.stack([column.float() for column in columns], dim=1)
