"""The LightningModule: one batch-to-loss path, weighted by valid tokens, and prediction as generation."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from slm.data.batches.windows import TEXT_BYTES
from slm.generation.config import GenerationConfig
from slm.generation.language_model import Completion, LanguageModel
from slm.generation.request import Prompt
from slm.models.contract import CausalLM
from slm.models.modules.build import build_loss
from slm.models.modules.lora import base_names
from slm.tokenizers.base import Tokenizer
from slm.training.exact_sum import ExactSum
from slm.training.optim.left_out import contagious, leave_out_if_bad
from slm.training.optim.optimizers import parameter_groups
from slm.training.step_figures import StepFigures, StepReader
from slm.training.text_figures import Scored, text_figures

Batch = dict[str, Tensor]


class LanguageModelModule(pl.LightningModule):
    """Trains a registered model on batches of ``input_ids`` and ``labels``.

    Every loss is the mean over valid tokens (labels other than -100): over all micro-batches and
    ranks of an optimizer step in training, over the whole split in validation.

    Args:
        model: a registered model.
        make_optimizer: parameter groups to an optimizer; None for a model that only predicts.
        weight_decay: for the matrices.
        lr_factor: optimizer step -> factor of the learning rate.
        grad_clip: largest global norm of the gradient; 0 for no clipping.
        val_shares: name -> share in the validation loss, for each validation loader; by default there is one.
        tokenizer: what `predict_step` reads prompts and writes text with.
        generation: settings of `predict_step`.
        on_answer: called with a prompt and its continuations as `predict_step` has them.
    """

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
        on_answer: Callable[[str | Prompt, list[Completion]], None] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        # what LoRA leaves as it was is in no checkpoint; `Resumed.check_model` compares the rest
        self.strict_loading = not base_names(model)
        self.loss = build_loss(cast(CausalLM, model).config)
        self.make_optimizer = make_optimizer
        self.weight_decay = weight_decay
        self.lr_factor = lr_factor
        self.grad_clip = grad_clip
        self.val_shares = dict(val_shares or {"": 1.0})
        self.tokenizer = tokenizer
        self.generation = generation
        self.on_answer = on_answer
        self.grad_norm: Tensor | None = None
        self.tokens_trained = 0
        self._batch_tokens = 0
        self._batch_bytes = 0.0
        self._step_sums = ExactSum()  # of the optimizer step under way, on this rank
        self._step_tokens = 0
        self._step_valid = 0  # valid tokens over all ranks
        self._steps = StepReader()
        self._logged_nll = 0.0
        self._logged_tokens = 0
        self._scored: dict[str, Scored] = {}  # of each validation loader, on this rank
        self.scored: dict[str, Scored] = {}  # the last validation's, on all
        self.val_metrics: dict[str, float] = {}
        self.settled: list[StepFigures] = []  # what `settle_steps` gave last
        self.bad_steps = 0  # so far, as the callback of that name counts them

    # ---- one path from batch to loss ----

    def model_step(self, batch: Batch) -> Tensor:
        """Summed negative log-likelihood of a batch's labels, in nats."""
        model = cast(CausalLM, self.model)
        packed = {"positions": batch["positions"]} if "positions" in batch else {}
        hidden = model.hidden_states(batch["input_ids"], **packed)
        return self.loss(hidden, model.head_weight, batch["labels"], model.config.vocab_size)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count the valid tokens while the labels are still on the host, so that no step waits for it; the text's bytes
        stay there."""
        if isinstance(batch, dict) and "labels" in batch:
            labels = batch["labels"]
            self._batch_tokens = int(((labels >= 0) & (labels != self.loss.ignore_index)).sum())
            self._batch_bytes = batch.get(TEXT_BYTES, 0.0)
            batch = {name: tensor for name, tensor in batch.items() if name != TEXT_BYTES}
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Prompts have nothing to move, and Lightning refuses frozen dataclasses."""
        return batch if isinstance(batch, list) else super().transfer_batch_to_device(batch, device, dataloader_idx)

    # ---- training ----

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Advance the position in the data."""
        self.trainer.datamodule.train_batch_taken()  # type: ignore[attr-defined]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Summed loss over the places a batch has at most; `on_before_optimizer_step` corrects the divisor."""
        nll = self.model_step(batch)
        self._step_sums.add(nll)
        self._step_tokens += self._batch_tokens
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        return contagious(nll) / (datamodule.batch_size * datamodule.seq_len)  # batches of unequal width weigh alike

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Turn the mean over places into the mean over valid tokens of the whole step."""
        accumulated = self.trainer.accumulate_grad_batches
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        places = datamodule.batch_size * datamodule.seq_len * accumulated * self.trainer.world_size
        self._step_valid = valid = self._sum_over_ranks(self._step_tokens)
        if valid not in (0, places):
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, places / valid)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Scale the gradient down to `grad_clip`, leave out a step that is not finite, and close the step's sums."""
        gradients = [p for p in self.model.parameters() if p.grad is not None]
        if self.grad_clip:
            self.grad_norm = nn.utils.clip_grad_norm_(gradients, self.grad_clip)
        else:
            self.grad_norm = nn.utils.get_total_norm([p.grad for p in gradients])  # type: ignore[misc]
        leave_out_if_bad(optimizer, self.grad_norm, getattr(self.trainer.precision_plugin, "scaler", None))
        self._close_step(self.grad_norm)

    def _close_step(self, grad_norm: Tensor) -> None:
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        taken = datamodule.batch_size * self.trainer.accumulate_grad_batches * self.trainer.world_size
        positions = (datamodule.position - taken, datamodule.position)
        step = self.trainer.global_step + 1
        known = StepFigures(step, positions, math.nan, self._take_step_count(), self._step_valid, math.nan)
        self._steps.put(known, self._step_sums.take(), grad_norm)
        self.tokens_trained += self._step_valid
        self._step_tokens = 0

    def _take_step_count(self) -> int:
        """How many the loss of the step that ends is of, on this rank."""
        return self._step_tokens

    def settle_steps(self, wait: bool) -> list[StepFigures]:
        """The steps whose figures have become known since the last call, in order; tokens of those that were left out
        are counted no more.

        Args:
            wait: the last one's too, also where that waits for the device.
        """
        self.settled = self._steps.take(wait)
        for figures in self.settled:
            self._settle(figures)
        return self.settled

    def _settle(self, figures: StepFigures) -> None:
        if figures.is_finite:
            self._add_to_log(figures)
        else:
            self.tokens_trained -= figures.tokens

    def _settle_rest(self) -> None:
        """Steps that no callback has settled before a row is due."""
        for figures in self._steps.take(wait=True):
            self._settle(figures)

    def _add_to_log(self, figures: StepFigures) -> None:
        self._logged_nll += figures.loss_sum
        self._logged_tokens += figures.count

    def mean_over_ranks(self, total: float, count: int) -> float:
        """Mean of what all ranks have `count` of, which together is `total`; called on all of them."""
        total, count = self._sum_over_ranks(total), self._sum_over_ranks(count)
        return total / count if count else math.nan

    def take_train_loss(self) -> float:
        """Mean loss (nats per token) over all ranks since the last call."""
        self._settle_rest()
        nll, tokens = self._logged_nll, self._logged_tokens
        self._logged_nll, self._logged_tokens = 0.0, 0
        return self.mean_over_ranks(nll, tokens)

    def take_train_metrics(self) -> dict[str, float]:
        """What a log row says of training since the last call."""
        return {"train/loss": self.take_train_loss()}

    def configure_optimizers(self) -> Any:
        """The optimizer over decay groups and its schedule, stepped with every optimizer step."""
        assert self.lr_factor is not None, "this module was made for prediction"
        optimizer = self.build_optimizer()
        self._schedule = LambdaLR(optimizer, self.lr_factor)
        known = {"initial_lr", *inspect.signature(type(optimizer)).parameters} - {"params"}  # what counts steps is none
        self._settings = [{k: v for k, v in group.items() if k in known} for group in optimizer.param_groups]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._schedule, "interval": "step"}}

    def build_optimizer(self) -> Optimizer:
        """A new optimizer over the decay groups."""
        assert self.make_optimizer is not None, "this module was made for prediction"
        kind = getattr(self.make_optimizer, "func", self.make_optimizer)
        by_role = getattr(kind, "takes_roles", False)
        return self.make_optimizer(parameter_groups(self.model, self.weight_decay, by_role))

    def on_train_start(self) -> None:
        """The learning rate, weight decay, … of the configuration hold, also where a checkpoint had others."""
        schedule = self._schedule
        schedule.base_lrs = [settings["initial_lr"] for settings in self._settings]
        for group, settings in zip(schedule.optimizer.param_groups, self._settings, strict=True):
            lr = settings["initial_lr"] * schedule.lr_lambdas[0](schedule.last_epoch)
            group.update({**settings, "lr": lr})

    # ---- validation ----

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._scored = {name: Scored() for name in self.val_shares}

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add to the sums."""
        part = list(self._scored.values())[dataloader_idx]
        part.add(self.model_step(batch), self._batch_tokens, self._batch_bytes)

    def on_validation_epoch_end(self) -> None:
        """``val/loss`` in nats per token, ``val/perplexity``, ``val/bits_per_byte``: exact sums over all ranks.

        Of several loaders also ``val/loss/<name>`` of each; the whole is their mean, weighted by the shares.
        """
        self.scored = {name: part.over(self._sum_over_ranks) for name, part in self._scored.items()}
        self.report_validation(text_figures(self.scored, self.val_shares))

    def report_validation(self, metrics: dict[str, float]) -> None:
        """Log `metrics` as ``val/…``, and keep them; ``loss`` is among them."""
        named = {f"val/{name}": value for name, value in metrics.items()}
        self.log_dict({name: torch.tensor(value) for name, value in named.items()}, logger=False)
        if self.trainer.state.fn == TrainerFn.FITTING:
            for logger in self.trainer.loggers:
                logger.log_metrics(named, step=self.trainer.global_step)
        self.val_metrics = metrics

    # ---- prediction ----

    def predict_step(self, batch: Sequence[str | Prompt], batch_idx: int) -> list[list[Completion]]:
        """The ``generation.n`` continuations of each prompt; `on_answer` is told of each, in the prompts' order."""
        assert self.tokenizer is not None, "prediction needs a tokenizer"
        assert self.generation is not None, "prediction needs settings"
        language_model = LanguageModel(cast(CausalLM, self.model), self.tokenizer, facts={})
        done: dict[int, list[Completion]] = {}
        answers: list[list[Completion]] = []
        for index, completions in language_model.complete_each(batch, self.generation):
            done[index] = completions
            while len(answers) in done:
                answers.append(done.pop(len(answers)))
                if self.on_answer is not None:
                    self.on_answer(batch[len(answers) - 1], answers[-1])
        return answers

    # ---- state ----

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The sums that a later log row is made of, over all ranks, and the last validation's figures; what LoRA leaves
        as it was is left out."""
        for name in base_names(self.model):
            del checkpoint["state_dict"][f"model.{name}"]
        checkpoint["train_sums"] = {
            "logged_nll": self._sum_over_ranks(self._logged_nll),
            "logged_tokens": self._sum_over_ranks(self._logged_tokens),
            "tokens_trained": self.tokens_trained,
        }
        checkpoint["val_metrics"] = dict(self.val_metrics)
        # Lightning's own counts, read by nothing here: one less after some resumes; of validations that were cut short
        loop = checkpoint["loops"]["fit_loop"]
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]
        for counts in (loop["epoch_loop.val_loop.batch_progress"][kind] for kind in ("total", "current")):
            counts.update(dict.fromkeys(counts, 0))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The inverse of `on_save_checkpoint`; the first rank goes on with the sums of all."""
        sums = checkpoint["train_sums"]
        first = self.trainer.is_global_zero
        self._logged_nll, self._logged_tokens = (sums["logged_nll"], sums["logged_tokens"]) if first else (0.0, 0)
        self.tokens_trained = sums["tokens_trained"]
        self.val_metrics = dict(checkpoint.get("val_metrics", {}))
        # Lightning counts micro-batches, of which a step may now take more or fewer (other batch, other ranks)
        taken = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts.update(dict.fromkeys(counts, taken))

    def _sum_over_ranks(self, value: Any) -> Any:
        """A number summed over all ranks and rounded once, so alike on all; on one rank the number itself, without a
        tensor. Its 64 bits travel as an integer, which every device has."""
        if self.trainer.world_size == 1:
            return value
        bits = np.float64(value).view(np.int64)
        of_ranks = cast(Tensor, self.all_gather(torch.tensor(bits, device=self.device)))
        return type(value)(math.fsum(np.array(of_ranks.tolist()).view(np.float64)))
