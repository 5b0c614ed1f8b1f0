"""The LightningModule: one path from batch to loss, and one place that makes sums of losses means."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from slm.data.batches.windows import TEXT_BYTES
from slm.generation.config import GenerationConfig
from slm.models.contract import CausalLM, build_loss
from slm.models.modules.lora import base_names
from slm.models.modules.losses import has_plain_head, log_probs_through_head
from slm.tokenizers.base import Tokenizer
from slm.training.figures import BatchLoss, ExactSum, Scored, StepFigures, StepReader, Totals, text_metrics
from slm.training.lightning_seams import count_in_micro_batches, without_stale_counts
from slm.training.optim.parameter_groups import contagious, leave_out_if_bad, parameter_groups

Batch = dict[str, Any]

TARGETS = "targets"
"""In a batch, beside its tensors: how many of its labels count."""


class LanguageModelModule(pl.LightningModule):
    """Trains a registered model on batches of ``input_ids`` and ``labels``.

    What a batch comes to is said by `batch_loss` alone, here and in a task of another loss: a sum, and over how many.
    Every loss is the mean over all of these: in training over all micro-batches and ranks of an optimizer step, in
    validation over the whole split.

    Args:
        make_optimizer: parameter groups to an optimizer; None for a model that is only scored.
        weight_decay: for the matrices.
        lr_factor: optimizer step -> factor of the learning rate.
        grad_clip: largest global norm of the gradient; 0 for no clipping.
        val_shares: name -> share in the validation loss, for each validation loader; by default there is one.
        tokenizer, generation: what callbacks let the model write with.
    """

    figure_names: ClassVar[tuple[str, ...]] = ("loss",)

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: Callable[[list[dict[str, Any]]], Optimizer] | None = None,
        weight_decay: float = 0.0,
        lr_factor: Callable[[int], float] | None = None,
        grad_clip: float = 0.0,
        val_shares: Mapping[str, float] | None = None,
        tokenizer: Tokenizer | None = None,
        generation: GenerationConfig | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        # what LoRA leaves as it was is in no checkpoint; `Resumed.check_fits` compares the rest
        self.strict_loading = not base_names(model)
        self.loss = build_loss(cast(CausalLM, model).config)
        self.make_optimizer = make_optimizer
        self.weight_decay = weight_decay
        self.lr_factor = lr_factor
        self.grad_clip = grad_clip
        self.val_shares = dict(val_shares or {"": 1.0})
        self.tokenizer = tokenizer
        self.generation = generation
        self.grad_norm: Tensor | None = None
        self.tokens_trained = 0
        self.bad_steps = 0  # so far, as the callback of that name counts them
        self.settled: list[StepFigures] = []  # what `settle_steps` gave last
        self.scored: dict[str, Totals] = {}  # the last validation's, of each loader, on all ranks
        self.val_metrics: dict[str, float] = {}
        self._nothing = Totals((0.0,) * len(self.figure_names))
        self._step_sums = ExactSum(len(self.figure_names))  # of the optimizer step under way, on this rank
        self._step_count = self._step_tokens = 0
        self._step_valid = 0  # tokens over all ranks
        self._steps = StepReader()
        self._logged = self._nothing  # since the last log row, on this rank
        self._scoring: list[Scored] = []

    # ---- from batch to loss ----

    def batch_loss(self, batch: Batch) -> BatchLoss:
        """Summed negative log-likelihood of a batch's labels, in nats, over as many tokens as count."""
        packed = {"positions": batch["positions"]} if "positions" in batch else {}
        model = cast(CausalLM, self.model)
        hidden = model(batch["input_ids"], **packed, return_hidden=True)
        labels = batch["labels"]
        if has_plain_head(self.model):
            nll = self.loss(hidden, model.head_weight, labels, model.config.vocab_size)
        else:  # of a quantized one, which is only scored
            labels = labels.masked_fill(labels == self.loss.ignore_index, -1)
            nll = -log_probs_through_head(model, hidden, labels).sum()
        return BatchLoss(nll, batch[TARGETS], nll.reshape(1, 1))

    def most_counted(self) -> int:
        """The largest `BatchLoss.count` of a micro-batch in training: every place a label."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return int(data.batch_size * data.seq_len)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count while the labels are still on the host, so that no step waits for it."""
        labels = batch["labels"]
        return {**batch, TARGETS: int(((labels >= 0) & (labels != self.loss.ignore_index)).sum())}

    # ---- training ----

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.trainer.datamodule.train_batch_taken()  # type: ignore[attr-defined]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum over what a batch has at most, so that batches of unequal count weigh alike;
        `on_before_optimizer_step` corrects the divisor."""
        loss = self.batch_loss(batch)
        self._step_sums.add(loss.figures)
        self._step_count += loss.count
        self._step_tokens += batch[TARGETS]
        return contagious(loss.total) / self.most_counted()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Make the gradient that of the mean over all that counts in the whole step, on all ranks."""
        most = self.most_counted() * self.trainer.accumulate_grad_batches * self.trainer.world_size
        count, self._step_valid = self.sum_over_ranks(self._step_count, self._step_tokens)
        if count not in (0, most):
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, most / count)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Scale the gradient down to `grad_clip`, leave out a step that is not finite, and close the step's sums."""
        trained = [p for p in self.model.parameters() if p.grad is not None]
        self.grad_norm = nn.utils.get_total_norm([p.grad for p in trained])  # type: ignore[misc]
        if self.grad_clip:
            nn.utils.clip_grads_with_norm_(trained, self.grad_clip, self.grad_norm)
        leave_out_if_bad(optimizer, self.grad_norm, getattr(self.trainer.precision_plugin, "scaler", None))
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        taken = data.batch_size * self.trainer.accumulate_grad_batches * self.trainer.world_size
        positions, step = (data.position - taken, data.position), self.trainer.global_step + 1
        known = StepFigures(step, positions, math.nan, self._step_count, self._step_valid, math.nan)
        self._steps.put(known, self._step_sums.take(), self.grad_norm)
        self.tokens_trained += self._step_valid
        self._step_count = self._step_tokens = 0

    def settle_steps(self, wait: bool) -> list[StepFigures]:
        """The steps whose figures have become known since the last call, in order, and with `wait` the last one's too,
        also where that waits for the device; tokens of those that were left out are counted no more."""
        self.settled = self._steps.take(wait)
        for figures in self.settled:
            if figures.is_finite:
                self._logged = self._logged.plus((figures.loss_sum, *figures.others), figures.count)
            else:
                self.tokens_trained -= figures.tokens
        return self.settled

    def take_train_metrics(self) -> dict[str, float]:
        """What a log row says of the steps that were settled since the last call: means over all ranks."""
        logged, self._logged = self._logged.over(self.sum_over_ranks), self._nothing
        return {f"train/{name}": value for name, value in zip(self.figure_names, logged.means, strict=True)}

    def sum_over_ranks(self, *values: Any) -> list[Any]:
        """Each number summed over all ranks and rounded once, so alike on all; on one rank the numbers themselves,
        without a tensor. Their 64 bits travel as integers, which every device has."""
        if self.trainer.world_size == 1:
            return list(values)
        bits = torch.tensor(np.array(values, np.float64).view(np.int64).tolist(), device=self.device)
        of_ranks = np.array(cast(Tensor, self.all_gather(bits)).tolist()).view(np.float64)
        return [type(value)(math.fsum(column)) for value, column in zip(values, of_ranks.T, strict=True)]

    # ---- the optimizer ----

    @cached_property
    def optimizer(self) -> Optimizer:
        """Over the decay groups; made when it is first asked for."""
        assert self.make_optimizer is not None, "this module was made for scoring"
        kind = getattr(self.make_optimizer, "func", self.make_optimizer)
        by_role = getattr(kind, "takes_roles", False)
        return self.make_optimizer(parameter_groups(self.model, self.weight_decay, by_role))

    def configure_optimizers(self) -> Any:
        assert self.lr_factor is not None, "this module was made for scoring"
        self._schedule = LambdaLR(self.optimizer, self.lr_factor)
        known = {"initial_lr", *inspect.signature(type(self.optimizer)).parameters} - {"params"}  # counts of steps stay
        self._settings = [{k: v for k, v in group.items() if k in known} for group in self.optimizer.param_groups]
        return {"optimizer": self.optimizer, "lr_scheduler": {"scheduler": self._schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """The learning rate, weight decay, … of the configuration hold, also where a checkpoint had others."""
        schedule = self._schedule
        schedule.base_lrs = [settings["initial_lr"] for settings in self._settings]
        for group, settings in zip(schedule.optimizer.param_groups, self._settings, strict=True):
            lr = settings["initial_lr"] * schedule.lr_lambdas[0](schedule.last_epoch)
            group.update({**settings, "lr": lr})

    # ---- validation ----

    def on_validation_epoch_start(self) -> None:
        self._scoring = [Scored(len(self.figure_names)) for _ in self.val_shares]

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add to the sums; a batch of no label evens out the ranks."""
        loss = self.batch_loss(batch)
        if batch[TARGETS]:
            self._scoring[dataloader_idx].add(loss, batch.get(TEXT_BYTES, 0.0))

    def on_validation_epoch_end(self) -> None:
        """The figures as ``val/…``, over the whole split and all ranks."""
        totals = (part.totals().over(self.sum_over_ranks) for part in self._scoring)
        self.scored = dict(zip(self.val_shares, totals, strict=True))
        self.val_metrics = self.validation_figures()
        named = {f"val/{name}": value for name, value in self.val_metrics.items()}
        self.log_dict({name: torch.tensor(value) for name, value in named.items()}, logger=False)
        if self.trainer.state.fn == TrainerFn.FITTING:
            for logger in self.trainer.loggers:
                logger.log_metrics(named, step=self.trainer.global_step)

    def validation_figures(self) -> dict[str, float]:
        """``loss`` in nats per token, ``perplexity``, ``bits_per_byte``. Of several loaders also ``loss/<name>`` of
        each; the whole is their mean, weighted by the shares: each has its share of the tokens."""
        parts = [(share, self.scored[name]) for name, share in self.val_shares.items()]
        bytes_per_token = sum(share * part.bytes_per_token for share, part in parts)
        figures = text_metrics(sum(share * part.loss for share, part in parts), bytes_per_token)
        by_part = {f"loss/{name}": part.loss for name, part in self.scored.items()}
        return {**figures, **(by_part if len(by_part) > 1 else {})}

    def scored_counts(self) -> dict[str, int]:
        """How many tokens the last validation scored, and how many bytes of text these stand for if that is known."""
        tokens = sum(part.count for part in self.scored.values())
        text_bytes = round(sum(part.text_bytes for part in self.scored.values()))
        return {"scored_tokens": tokens, **({"scored_bytes": text_bytes} if text_bytes else {})}

    # ---- state ----

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The sums that a later log row is made of, over all ranks, and the last validation's figures; what LoRA leaves
        as it was is left out."""
        for name in base_names(self.model):
            del checkpoint["state_dict"][f"model.{name}"]
        sums = self.sum_over_ranks(*self._logged.sums, self._logged.count)
        checkpoint["train_sums"] = {"figures": sums, "tokens_trained": self.tokens_trained}
        checkpoint["val_metrics"] = dict(self.val_metrics)
        without_stale_counts(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The inverse of `on_save_checkpoint`; the first rank goes on with the sums of all."""
        saved = checkpoint["train_sums"]
        # checkpoints of before this name was shared have those of text by names of their own
        *sums, count = saved["figures"] if "figures" in saved else (saved["logged_nll"], saved["logged_tokens"])
        self._logged = Totals(tuple(sums), int(count)) if self.trainer.is_global_zero else self._nothing
        self.tokens_trained = saved["tokens_trained"]
        self.val_metrics = dict(checkpoint.get("val_metrics", {}))
        count_in_micro_batches(checkpoint, self.trainer.accumulate_grad_batches)
