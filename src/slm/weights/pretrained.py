"""A model that exists, in whichever format: opened, checked, loaded when it is wanted, and fitted to another shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.models.inference.prepared import prepare_for_inference
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.load import is_missing
from slm.weights.name_table import Table, check_tensors, load_tensors, widest_dtype
from slm.weights.tensor_source import TensorSource

PUBLISHED_DTYPE = "published_dtype"  # of `Pretrained.facts`
TOKEN_ROWS = ("token_embedding.weight", "value_embedding.table.weight", "output_projection.weight")
_POSITION_ROWS = "position_embedding.weight"
_MOST_LAYERS = 1 << 10  # far above any model's; laying out takes about four milliseconds each
_LARGEST_SIZE = 1 << 24  # far above that of any model there is; beyond, torch's counting overflows


@dataclass(frozen=True)
class Pretrained:
    """What a source holds; no weight has been read yet."""

    config: ModelConfig
    table: Table
    tensors: TensorSource
    tokenizer: Tokenizer
    facts: dict[str, Any]  # plain types that say what produced it (training step, loss, versions, …)
    quantize: str | None = None  # ``int8`` or ``int4`` if its matrices are stored so

    @property
    def stored_dtype(self) -> str:
        """Torch's name of the one that holds every tensor exactly."""
        return str(widest_dtype(self.table, self.tensors)).removeprefix("torch.")

    @property
    def published_dtype(self) -> str:
        """Torch's name of the one in which the weights were published, whatever training made of them since."""
        found = self.facts.get(PUBLISHED_DTYPE)
        return found if found in ("float32", "bfloat16", "float16") else self.stored_dtype

    def laid_out(self, dtype: torch.dtype | None = None) -> nn.Module:
        """On the meta device; `dtype` is that of what is computed with quantized weights."""
        model = lay_out(self.config)
        if self.quantize is not None:
            prepare_for_inference(model.to(dtype), self.quantize)
        return model

    def weights(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Our state dict, in `dtype` or else the one that holds every tensor exactly; `UserError` if it cannot be."""
        return self._weights_of(self.laid_out(), device, dtype)

    def model(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> nn.Module:
        """The model with its weights, in eval mode; arguments and errors as for `weights`."""
        model = self.laid_out(dtype or widest_dtype(self.table, self.tensors))
        take_weights(model, self._weights_of(model, device, dtype), torch.device(device))
        return model.eval()

    def _weights_of(self, model: nn.Module, device: torch.device | str, dtype: torch.dtype | None) -> dict[str, Tensor]:
        ours = model.state_dict()
        check_tensors(self.table, ours, self.tensors, self.config.vocab_size)
        stored = widest_dtype(self.table, self.tensors)  # also where another is wanted: it refuses what are no weights
        return load_tensors(self.table, ours, self.tensors, dtype or stored, torch.device(device))


def stored_config(values: Mapping[str, Any], where: str) -> ModelConfig:
    """The shape that a file gives for its weights; `UserError` if weights could have none such."""
    config = ModelConfig.from_dict(values, where=where)
    if config.params.vocab_size is None:
        raise UserError(f"{where}.params.vocab_size is missing")
    transformer = config.modules.transformer
    sizes = {**config.flat(), "n_heads * head_dim": transformer.n_heads * transformer.head_dim}
    limits = {"modules.transformer.n_layers": _MOST_LAYERS}
    absurd = [key for key, size in sizes.items() if isinstance(size, int) and size > limits.get(key, _LARGEST_SIZE)]
    if absurd:
        raise UserError(f"{where}: no model is so large: {', '.join(absurd)}")
    return config


def lay_out(config: ModelConfig) -> nn.Module:
    """The model on the meta device: no number is drawn, no memory taken."""
    with torch.device("meta"):
        return build_model(config)


def take_weights(model: nn.Module, weights: dict[str, Tensor], device: torch.device) -> None:
    """Give a laid-out `model` its weights, and compute the buffers that are never saved (position tables)."""
    for module in model.modules():
        unsaved = module._non_persistent_buffers_set
        laid_out = {n: buffer for n, buffer in module._buffers.items() if n in unsaved and buffer is not None}
        for name, buffer in laid_out.items():
            module._buffers[name] = torch.empty_like(buffer, device=device)
        if laid_out:
            with torch.no_grad():  # weights, still without memory here, are left alone
                module.init_weights()  # type: ignore[operator]
    model.load_state_dict(weights, assign=True)


def fine_tuned_model(start: Pretrained, config: ModelConfig, grow: str | None, new: range | None = None) -> nn.Module:
    """A model with the weights of `start`, in fp32, in training mode; `config` differs in vocabulary and length alone.
    Rows of the `new` ids, by default those beyond the weights', begin as `grow` says, ``mean`` or ``normal``."""
    model = lay_out(config)
    weights = start.weights(dtype=torch.float32)
    known = start.config.vocab_size
    new = new or range(known, config.vocab_size)
    for name in TOKEN_ROWS:
        if name in weights:
            weights[name] = _with_token_rows(weights[name][:known], config, grow, new)
    if (rows := weights.get(_POSITION_ROWS)) is not None:
        length = config.params.max_seq_len
        if length > len(rows):  # the extension ``linear``
            rows = interpolate(rows.t()[None], size=length, mode="linear", align_corners=True)[0].t().contiguous()
        weights[_POSITION_ROWS] = rows[:length]
    take_weights(model, weights, torch.device("cpu"))
    return model.train()


def check_same_tokens(tokenizer: Tokenizer, of_weights: Tokenizer) -> None:
    """Raise `UserError` if an id means another text to the weights, unless they came without a tokenizer."""
    if is_missing(of_weights) or tokenizer.fingerprint == of_weights.fingerprint:
        return
    for token_id in range(min(tokenizer.vocab_size, of_weights.vocab_size)):
        here, there = tokenizer.decode([token_id]), of_weights.decode([token_id])
        if here != there:
            raise UserError(
                f"the tokenizer is not the weights': token {token_id} is {here!r} in the data and {there!r} to the "
                "weights; tokenizer=pretrained takes theirs"
            )


def _with_token_rows(rows: Tensor, config: ModelConfig, grow: str | None, new: range) -> Tensor:
    """(V, C) of the weights to (V', C): new tokens begin as `grow` says, padding as zeros."""
    n_rows = config.padded_vocab_size
    if n_rows == len(rows) and not (new and grow):
        return rows
    result = rows.new_zeros(n_rows, rows.shape[1])
    result[: len(rows)] = rows
    if new:
        known = rows[: new.start]
        result[new.start : new.stop] = known.mean(dim=0)
        if grow == "normal":
            result[new.start : new.stop] += torch.randn_like(result[new.start : new.stop]) * known.std(dim=0)
    return result
