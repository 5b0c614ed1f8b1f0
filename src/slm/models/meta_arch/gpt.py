"""The GPT: token and position embeddings, a stack of blocks, a head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from slm.models.config import ModelConfig
from slm.models.contract import Cache, Positions
from slm.models.inference.kv_cache import KVCache
from slm.models.modules.embeddings import ValueEmbedding
from slm.models.modules.transformer import Transformer
from slm.registry import POSITION_EMBEDDINGS, register_model

_INIT_STD = 0.02


@register_model("gpt")
class GPT(nn.Module):
    """A decoder-only transformer built from a `ModelConfig` (Radford et al. 2019)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        modules = config.modules
        self.config = config
        rows = torch.empty(config.padded_vocab_size, modules.transformer.dim)
        self.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)  # draws nothing; `init_weights` does
        self.value_embedding = ValueEmbedding(config) if modules.token_embedding.values else None
        self.position_embedding = POSITION_EMBEDDINGS.get(modules.position_embedding.kind)(config)
        self.emb_dropout = nn.Dropout(modules.emb_dropout.p)
        self.transformer = Transformer(modules.transformer)
        self.output_projection: nn.Linear | None = None  # tied, the token embedding's weight serves
        if not modules.output_projection.tie_weights:
            self.output_projection = nn.Linear(modules.transformer.dim, config.padded_vocab_size, bias=False)
        self.inference_head: nn.Module | None = None  # a faster form of the head's weight, where decoding made one
        for name in ("token_embedding", "position_embedding", "transformer", "output_projection"):
            if getattr(modules, name).freeze and (part := getattr(self, name)) is not None:
                part.requires_grad_(False)
        if modules.token_embedding.freeze and self.value_embedding is not None:
            self.value_embedding.requires_grad_(False)

    @classmethod
    def from_config(cls, config: ModelConfig) -> GPT:
        """A model with GPT-2's initial weights on torch's default device; on the meta device, its shapes alone."""
        device = torch.get_default_device()
        with torch.device("meta"):  # so that every number is drawn once
            model = cls(config)
        if device.type != "meta":
            _give_memory(model, device)
            model.init_weights()
        return model

    @torch.no_grad()
    def init_weights(self) -> None:
        """GPT-2's initialisation: N(0, 0.02), biases 0, and the projections that write into the
        residual stream scaled by 1/sqrt(2 * n_layers) (Radford et al. 2019, section 2.3), or 0 with ``zero_init``."""
        shape = self.config.modules.transformer
        residual_std = 0.0 if shape.zero_init else _INIT_STD / math.sqrt(2 * shape.n_layers)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                writes_residual = name.endswith(("attention.out_proj", "mlp.down_proj"))
                nn.init.normal_(module.weight, std=residual_std if writes_residual else _INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=_INIT_STD)
            elif module is not self.position_embedding and any(True for _ in module.parameters(recurse=False)):
                module.reset_parameters()  # norms, and kinds that others registered
        self.position_embedding.init_weights()

    @property
    def head_weight(self) -> Tensor:
        """(V', C); rows from `vocab_size` on are padding. Tied, the token embedding's own weight."""
        return self.token_embedding.weight if self.output_projection is None else self.output_projection.weight

    def hidden_states(self, input_ids: Tensor, cache: Cache | None = None, positions: Tensor | None = None) -> Tensor:
        """What the head reads; see `CausalLM`."""
        length = input_ids.shape[1]
        places: Positions = slice(0, length) if positions is None else positions
        end = length
        if cache is not None:
            assert positions is None, "a cache knows where its rows stand"
            places, end = cache.positions(length), cache.end(length)
        x = self.token_embedding(input_ids)
        rotation = self.position_embedding.rotation(x, places, end)
        x = self.emb_dropout(self.position_embedding(x, places))
        values = self.value_embedding(input_ids) if self.value_embedding is not None else None
        return self.transformer(x, rotation, cache, positions, values)

    def head(self, hidden: Tensor) -> Tensor:
        """(..., C) to logits (..., V)."""
        products = linear(hidden, self.head_weight) if self.inference_head is None else self.inference_head(hidden)
        logits = products[..., : self.config.vocab_size]
        cap = self.config.modules.output_projection.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def forward(
        self,
        input_ids: Tensor,
        cache: Cache | None = None,
        positions: Tensor | None = None,
        *,
        return_hidden: bool = False,
    ) -> Tensor:
        """Logits (B, T, V) of the token after each position; with `return_hidden` (B, T, C), ready for the head. T is
        at most ``max_seq_len`` less what the cache holds, which the new positions are appended to."""
        packed = {} if positions is None else {"positions": positions}  # a subclass need not know of them
        hidden = self.hidden_states(input_ids, cache, **packed)
        return hidden if return_hidden else self.head(hidden)

    def make_cache(self, batch_size: int, max_len: int | None = None) -> KVCache:
        """An empty cache for `batch_size` sequences of up to `max_len` tokens (default: the model's)."""
        shape, weight = self.config.modules.transformer, self.token_embedding.weight
        room = max_len or self.config.params.max_seq_len
        sizes = (shape.n_layers, batch_size, shape.n_kv_heads, room, shape.head_dim)
        return KVCache(sizes, weight.device, weight.dtype)


def _give_memory(model: nn.Module, device: torch.device) -> None:
    """As ``to_empty(device=device)``, whose ``empty_like`` of meta tensors imports sympy, a third of a second."""
    for module in model.modules():
        for name, held in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            empty = torch.empty(held.shape, dtype=held.dtype, device=device)
            made = nn.Parameter(empty, held.requires_grad) if isinstance(held, nn.Parameter) else empty
            setattr(module, name, made)
