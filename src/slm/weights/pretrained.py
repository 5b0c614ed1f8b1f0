"""A model that exists, in whichever format: opened, checked, and loaded when it is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slm.models.config import ModelConfig
from slm.models.inference.prepared import prepare_for_inference
from slm.tokenizers.base import Tokenizer
from slm.weights.laid_out import lay_out, take_weights
from slm.weights.name_table import Table, check_tensors, load_tensors, widest_dtype
from slm.weights.tensor_source import TensorSource

PUBLISHED_DTYPE = "published_dtype"
"""Of `Pretrained.facts`."""


@dataclass(frozen=True)
class Pretrained:
    """What a source holds; no weight has been read yet.

    Attributes:
        config: the model's shape.
        table: how its tensors make up ours.
        tensors: where they lie.
        tokenizer: the model's own.
        facts: plain types that say what produced it (training step, loss, versions, …).
        quantize: ``int8`` or ``int4`` if that is how its matrices are stored.
    """

    config: ModelConfig
    table: Table
    tensors: TensorSource
    tokenizer: Tokenizer
    facts: dict[str, Any]
    quantize: str | None = None

    @property
    def stored_dtype(self) -> str:
        """Torch's name of the one that holds every tensor exactly."""
        return str(widest_dtype(self.table, self.tensors)).removeprefix("torch.")

    @property
    def published_dtype(self) -> str:
        """Torch's name of the one in which the weights were published, whatever training made of them since."""
        found = self.facts.get(PUBLISHED_DTYPE)
        return found if found in ("float32", "bfloat16", "float16") else self.stored_dtype

    def laid_out(self) -> nn.Module:
        """The model's layers, with shapes and no memory."""
        model = lay_out(self.config)
        if self.quantize is not None:
            prepare_for_inference(model, self.quantize)
        return model

    def weights(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Our state dict.

        Args:
            device: where to put it.
            dtype: None for the one that holds every tensor exactly.

        Raises:
            UserError: the tensors are not those of the config, or cannot be read.
        """
        return self._weights_of(self.laid_out(), device, dtype)

    def model(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> nn.Module:
        """The model with its weights, in eval mode; arguments and errors as for `weights`."""
        model = self.laid_out()
        take_weights(model, self._weights_of(model, device, dtype), torch.device(device))
        return model.eval()

    def _weights_of(self, model: nn.Module, device: torch.device | str, dtype: torch.dtype | None) -> dict[str, Tensor]:
        """`weights`, for a `model` that is laid out already."""
        ours = model.state_dict()
        check_tensors(self.table, ours, self.tensors, self.config.vocab_size)
        stored = widest_dtype(self.table, self.tensors)  # also where another is wanted: it refuses what are no weights
        return load_tensors(self.table, ours, self.tensors, dtype or stored, torch.device(device))
