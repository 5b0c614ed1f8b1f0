"""What the rest of `slm` asks of a registered model. `GPT` is one; yours may be another."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from slm.models.config import ModelConfig


class CausalLM(Protocol):
    """An `nn.Module` with these methods; ``from_config(config)`` makes one with fresh weights.

    A saved model is laid out on the meta device before it takes its weights, so a module with buffers
    computes them in ``init_weights()``.
    """

    config: ModelConfig

    @property
    def head_weight(self) -> Tensor:
        """(V', C), V' >= vocab_size: what the loss multiplies hidden states with."""

    def hidden_states(self, input_ids: Tensor, cache: Any = None) -> Tensor:
        """(B, T) ids to (B, T, C), ready for the head; a cache is continued and extended."""

    def head(self, hidden: Tensor) -> Tensor:
        """(..., C) to logits (..., V)."""

    def make_cache(self, batch_size: int, max_len: int | None = None) -> Any:
        """An empty cache for `hidden_states`."""

    def __call__(self, input_ids: Tensor, cache: Any = None) -> Tensor:
        """Logits (B, T, V)."""
