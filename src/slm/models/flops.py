"""Floating-point operations of a model, counted from its layers and its config."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from slm.models.config import ModelConfig
from slm.models.modules.lora import LoraLinear


@dataclass(frozen=True)
class TokenFlops:
    """What one token costs, on its way there and back; a multiplication and an addition are two operations."""

    blocks_forward: float
    blocks_backward: float
    head_forward: float
    head_backward: float

    @property
    def forward(self) -> float:
        return self.blocks_forward + self.head_forward

    @property
    def backward(self) -> float:
        return self.blocks_backward + self.head_backward

    def of_training(self, tokens: float, scored: float | None = None, recompute: bool = False) -> float:
        """A forward and a backward pass over so many `tokens`, of which `scored` go through the head (None for all).
        With `recompute` the blocks run forward once more."""
        blocks = self.blocks_forward * (2 if recompute else 1) + self.blocks_backward
        return blocks * tokens + (self.head_forward + self.head_backward) * (tokens if scored is None else scored)


def token_flops(model: nn.Module, length: int) -> TokenFlops:
    """Of one token in a window of `length`: ``2 N`` forward with N the parameters that take part in matrix products,
    and ``4 L H D T`` for the attention of L layers with H heads of width D over T positions seen (Chowdhery et al.
    2022, appendix B: the whole window, though half of it is masked). Embedding look-ups are none, a tied head counts
    once. Backward each product is made once for the gradient of its input, where something before it is trained, and
    once for that of its weight, where that is trained: twice the forward pass where everything is."""
    config: ModelConfig = model.config  # type: ignore[assignment]
    shape = config.modules.transformer
    head: Tensor = model.head_weight  # type: ignore[assignment]
    forward = backward = 0.0
    for weight, reached in _products(model):
        if weight is not head:
            forward += 2.0 * weight.numel()
            backward += 2.0 * weight.numel() * (reached + weight.requires_grad)
    seen = sum(min(length, shape.window_of(layer) or length) for layer in range(shape.n_layers))
    attention = 4.0 * shape.n_heads * shape.head_dim * seen
    trained = any(p.requires_grad for p in model.parameters())
    return TokenFlops(
        forward + attention,
        backward + 2 * attention * trained,
        2.0 * head.numel(),
        2.0 * head.numel() * (trained + head.requires_grad),
    )


def _products(model: nn.Module) -> Iterator[tuple[Tensor, bool]]:
    """Each matrix of a linear layer, and whether a gradient goes through its input: something before it is trained."""
    reached = False
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, nn.Linear):
            yield module.weight, reached
        if isinstance(module, LoraLinear):
            yield module.lora_a, reached
            yield module.lora_b, True
        reached = reached or any(p.requires_grad for p in own)


def training_flops_per_token(model: nn.Module) -> float:
    """Floating-point operations of one token's forward and backward pass at the model's full length."""
    config: ModelConfig = model.config  # type: ignore[assignment]
    return token_flops(model, config.params.max_seq_len).of_training(1)
