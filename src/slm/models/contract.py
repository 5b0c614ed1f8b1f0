"""What the rest of `slm` asks of a registered model (`GPT` is one; yours may be another), and how one is built."""

import inspect
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.registry import LOSSES, MODELS

Positions = slice | Tensor
"""Where tokens stand: a slice for all rows alike, or (B, T) int64."""


class CausalLM(Protocol):
    """An `nn.Module` with these methods; ``from_config(config)`` makes one with fresh weights. A saved model is laid
    out on the meta device before it takes its weights: buffers are made in ``init_weights()``."""

    config: ModelConfig

    @property
    def head_weight(self) -> Tensor:
        """(V', C), V' >= vocab_size: what the loss multiplies hidden states with."""

    def hidden_states(self, input_ids: Tensor, cache: Any = None, positions: Tensor | None = None) -> Tensor:
        """(B, T) ids to (B, T, C), ready for the head; a cache is continued and extended. With a cache that has rows at
        different positions, T is 1. `positions` (B, T), never beside a cache, says that rows hold several texts: each
        begins at a 0 and must not see what stands before it. Packed training alone gives them; a model that never shall
        be so trained needs no such argument."""

    def head(self, hidden: Tensor) -> Tensor:
        """(..., C) to logits (..., V)."""

    def make_cache(self, batch_size: int, max_len: int | None = None) -> Any:
        """An empty cache for `hidden_states`: `batch_size` rows of `max_len` positions. Generation uses of it what
        `KVCache` (slm/models/inference/kv_cache.py) says under "what a decode loop does with rows", and ``lengths``. A
        model that hands a `KVCache` to its attention needs no more."""

    def __call__(
        self, input_ids: Tensor, cache: Any = None, positions: Tensor | None = None, *, return_hidden: bool = False
    ) -> Tensor:
        """Logits (B, T, V); with `return_hidden` what `hidden_states` gives, for a loss that takes `head_weight`.
        Training calls the model so and not by its methods: the hooks of FSDP2 and of torch.compile sit at the call."""


def build_model(config: ModelConfig) -> nn.Module:
    """The model `config.name`, fresh on torch's default device; `UserError` if a loss cannot have its hidden states."""
    model: nn.Module = MODELS.get(config.name).from_config(config)
    takes = inspect.signature(model.forward).parameters.values()
    if not any(p.name == "return_hidden" or p.kind is p.VAR_KEYWORD for p in takes):
        raise UserError(
            f"the model '{config.name}' ({type(model).__qualname__}): its forward has no argument return_hidden; add "
            "return_hidden=False and, where it is true, return self.hidden_states(…) in place of logits"
        )
    return model


def build_loss(config: ModelConfig) -> nn.Module:
    """The training loss; see `slm.models.modules.losses` for what it takes."""
    loss, softcap = config.modules.loss, config.modules.output_projection.softcap
    return LOSSES.get(loss.kind)(ignore_index=loss.ignore_index, softcap=softcap)


class Cache(Protocol):
    """Keys and values of past positions, as a forward pass asks for them."""

    def positions(self, n_tokens: int) -> Positions:
        """Where the next tokens stand."""

    def end(self, n_tokens: int) -> int:
        """One more than the last of these positions."""

    def mask(self, n_tokens: int, window: int | None) -> Tensor | None:
        """What the next tokens see: (T, S) or (B, 1, 1, S) bool, None where plain causality says it all."""

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, n_kv_heads, T, head_dim) of a layer's new positions; (B, n_kv_heads, S, head_dim) of all."""

    def advance(self, n_tokens: int) -> None:
        """Count the new positions as filled, once all layers have stored them."""


def compute_dtype(x: Tensor) -> torch.dtype:
    """In which a layer computes: autocast's on the device of `x` where it is on, else that of `x`."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
