"""Weights that exist, fitted to a model with more tokens or another length."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.load import is_missing
from slm.weights.pretrained import Pretrained, lay_out, take_weights

TOKEN_ROWS = ("token_embedding.weight", "value_embedding.table.weight", "output_projection.weight")
_POSITION_ROWS = "position_embedding.weight"


def fine_tuned_model(start: Pretrained, config: ModelConfig, grow: str | None, new: range | None = None) -> nn.Module:
    """A model with the weights of `start`, in fp32, in training mode; `config` differs in vocabulary and length alone.

    Rows of the `new` ids, by default those beyond the weights', begin as `grow` says, ``mean`` or ``normal``.
    """
    model = lay_out(config)
    weights = start.weights(dtype=torch.float32)
    known = start.config.vocab_size
    new = new or range(known, config.vocab_size)
    for name in TOKEN_ROWS:
        if name in weights:
            weights[name] = _with_token_rows(weights[name][:known], config, grow, new)
    if _POSITION_ROWS in weights:
        weights[_POSITION_ROWS] = _with_positions(weights[_POSITION_ROWS], config.params.max_seq_len)
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


def _with_positions(rows: Tensor, length: int) -> Tensor:
    """Learned positions (T, C) at another length: cut, or interpolated (the extension ``linear``)."""
    if length <= len(rows):
        return rows[:length]
    return interpolate(rows.t()[None], size=length, mode="linear", align_corners=True)[0].t().contiguous()
