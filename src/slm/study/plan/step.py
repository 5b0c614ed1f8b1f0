"""An optimizer step in the order in which Lightning makes it, with the run's module, optimizer and loss."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from slm.study.plan.planned import PlannedRun
from slm.training.lit_module import LanguageModelModule
from slm.training.optim.parameter_groups import contagious


class TrainingStep:
    """Makes steps on one `batch`, over and over. What a step keeps until the next one's backward pass begins (the
    gradients) it keeps here too."""

    def __init__(self, run: PlannedRun, module: LanguageModelModule, batch: dict[str, Any], device: str) -> None:
        self.run, self.module, self.batch, self.device = run, module, batch, device
        self.optimizer = module.optimizer
        self.trained = [p for p in module.parameters() if p.requires_grad]

    def make(self, micro_batches: int = 1) -> None:
        """One optimizer step."""
        for number in range(micro_batches):
            self.micro_step(is_first=number == 0)
        self.update()

    def micro_step(self, is_first: bool = True) -> None:
        """Forward and backward over the batch; the gradients of before are dropped between the two, where it is the
        first of its optimizer step."""
        loss = self.loss()
        if is_first:
            self.optimizer.zero_grad()
        loss.backward()

    def loss(self) -> Tensor:
        with self._autocast():
            found = self.module.batch_loss(self.batch)
        return contagious(found.total) / max(1, found.count)

    def update(self) -> None:
        """Clip the gradient and let the optimizer step."""
        with_gradient = [p for p in self.trained if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in with_gradient])  # type: ignore[misc]
        if self.module.grad_clip:
            nn.utils.clip_grads_with_norm_(with_gradient, self.module.grad_clip, norm)
        self.optimizer.step()

    @property
    def optimizer_state(self) -> list[Tensor]:
        states = self.optimizer.state.values()
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device, dtype=self.run.dtype) if self.run.autocasts else nullcontext()
