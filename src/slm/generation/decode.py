"""The decode loop, as verbs: prefill the prompt, decode one token at a time, sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from slm.errors import UserError
from slm.generation.config import GenerationConfig
from slm.generation.sampling import next_token
from slm.models.contract import CausalLM
from slm.models.modules.kv_cache import KVCache


@torch.inference_mode()
def generate_ids(
    model: CausalLM,
    prompt_ids: Sequence[int],
    settings: GenerationConfig,
    eos_id: int,
    vocab_size: int | None = None,
) -> Iterator[int]:
    """Token ids that continue a prompt, as they come.

    Ends after ``max_new_tokens``, before end-of-text if ``stop_at_eos``, or when the model's
    ``max_seq_len`` is full. An empty prompt stands for the beginning of a text. The model must be
    in eval mode. Ids from `vocab_size` on (a tokenizer may have fewer than the model) never come.

    Raises:
        UserError: the prompt leaves no room for a new token.
    """
    ids = list(prompt_ids) or [eos_id]
    max_seq_len = model.config.params.max_seq_len
    room = max_seq_len - len(ids)
    if room < 1:
        raise UserError(
            f"the prompt has {len(ids)} tokens; this model takes {max_seq_len}, one of them new: "
            f"shorten the prompt to {max_seq_len - 1}"
        )
    n_new = min(settings.max_new_tokens, room)
    device = model.head_weight.device
    generator = None
    if settings.seed is not None:
        generator = torch.Generator(device).manual_seed(settings.seed)
    cache = model.make_cache(batch_size=1, max_len=len(ids) + n_new - 1)  # the last new one is never read
    logits = prefill(model, torch.tensor([ids], device=device), cache)
    for count in range(1, n_new + 1):
        token = next_token(logits[:, :vocab_size], settings, generator)
        token_id = int(token)
        if settings.stop_at_eos and token_id == eos_id:
            return
        yield token_id
        if count < n_new:
            logits = decode_one(model, token, cache)


def prefill(model: CausalLM, input_ids: Tensor, cache: KVCache) -> Tensor:
    """Read the prompts (B, T) into the cache; logits (B, V) of the token that follows."""
    return model.head(model.hidden_states(input_ids, cache)[:, -1])


def decode_one(model: CausalLM, token: Tensor, cache: KVCache) -> Tensor:
    """Append one token a row (B,) to the cache; logits (B, V) of the next."""
    return model.head(model.hidden_states(token[:, None], cache)[:, -1])
