"""A causal language model that was trained by slm, for `transformers`, of a shape that none of its own families has.

Exports carry this file as it is: it needs torch and transformers alone, and its tensors are named as slm names them.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, linear, relu, rms_norm, scaled_dot_product_attention, silu
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

ACTIVATIONS = {
    "gelu": gelu,
    "gelu_tanh": lambda x: gelu(x, approximate="tanh"),
    "relu": relu,
    "relu2": lambda x: relu(x).square(),
    "silu": silu,
}


class SlmConfig(PretrainedConfig):
    """`slm` is the shape as slm has it; `rotary_frequencies` are radians a position, for each pair that turns, and
    cosines and sines are multiplied by `rotary_factor`."""

    model_type = "slm"

    def __init__(
        self,
        slm: dict[str, Any] | None = None,
        rotary_frequencies: list[float] | None = None,
        rotary_factor: float = 1.0,
        use_cache: bool = True,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.use_cache = use_cache
        self.slm = slm or {}
        self.rotary_frequencies = rotary_frequencies
        self.rotary_factor = rotary_factor


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def norm(shape: dict[str, Any], dim: int) -> nn.Module:
    """Of the shape's kind, `dim` wide."""
    if shape["norm"] == "rms_norm":
        return RMSNorm(dim, shape["norm_eps"])
    return nn.LayerNorm(dim, eps=shape["norm_eps"], bias=shape["bias"])


class Attention(nn.Module):
    """Attention in several heads; a key head may serve several queries'."""

    def __init__(self, shape: dict[str, Any], layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, shape["head_dim"]
        self.heads = (shape["n_heads"], shape["n_kv_heads"], shape["n_kv_heads"])
        self.qkv = nn.Linear(shape["dim"], sum(self.heads) * self.head_dim, bias=shape["qkv_bias"])
        self.q_norm = norm(shape, self.head_dim) if shape["qk_norm"] else nn.Identity()
        self.k_norm = norm(shape, self.head_dim) if shape["qk_norm"] else nn.Identity()
        self.out_proj = nn.Linear(self.heads[0] * self.head_dim, shape["dim"], bias=shape["out_proj_bias"])

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor] | None, mask: Tensor, cache: Any, values: Tensor | None
    ) -> Tensor:
        """(B, T, C) to (B, T, C); `mask` (B, 1, T, S) is True where a query sees a key."""
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, -1, self.head_dim).split(self.heads, dim=2)
        if values is not None:
            v = v + values.to(v.dtype)
        q, k, v = self.q_norm(q).transpose(1, 2), self.k_norm(k).transpose(1, 2), v.transpose(1, 2)
        if rotation is not None:
            q, k = turned(q, *rotation), turned(k, *rotation)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        shared = self.heads[0] // self.heads[1]
        k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The first numbers of each head, as many as angles turn; pairs are i and i + half of these."""
    half = cos.shape[-1]
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


class MLP(nn.Module):
    """Two matrices, or three of which one gates."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        dim, hidden, bias = shape["dim"], shape["mlp_dim"], shape["mlp_bias"]
        self.gate_proj = nn.Linear(dim, hidden, bias=bias) if shape["mlp"] == "glu" else None
        self.up_proj = nn.Linear(dim, hidden, bias=bias)
        self.down_proj = nn.Linear(hidden, dim, bias=bias)
        self.activation = ACTIVATIONS[shape["activation"]]

    def forward(self, x: Tensor) -> Tensor:
        if self.gate_proj is None:
            return self.down_proj(self.activation(self.up_proj(x)))
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class EmbeddingSkip(nn.Module):
    """``a x + b x0``, with x0 what the first block reads."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        stream, skip = self.weight.to(x.dtype)
        return stream * x + skip * embedded


class Block(nn.Module):
    """Attention and MLP, each added to the stream: normed before, or after, or both of the same input."""

    def __init__(self, shape: dict[str, Any], layer: int) -> None:
        super().__init__()
        self.prenorm, self.parallel = shape["prenorm"], shape["parallel_residual"]
        self.attention_norm = norm(shape, shape["dim"])
        self.attention = Attention(shape, layer)
        self.mlp_norm = norm(shape, shape["dim"])
        self.mlp = MLP(shape)
        self.embedding_skip = EmbeddingSkip() if shape["embedding_skip"] else None

    def forward(self, x: Tensor, embedded: Tensor, *attended: Any) -> Tensor:
        if self.embedding_skip is not None:
            x = self.embedding_skip(x, embedded)
        if not self.prenorm:
            x = self.attention_norm(x + self.attention(x, *attended))
            return self.mlp_norm(x + self.mlp(x))
        mixed = x + self.attention(self.attention_norm(x), *attended)
        return mixed + self.mlp(self.mlp_norm(x if self.parallel else mixed))


class Transformer(nn.Module):
    """The blocks, and the norm that closes a stream which is normed before each."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(shape, layer) for layer in range(shape["n_layers"]))
        self.final_norm = norm(shape, shape["dim"]) if shape["prenorm"] else nn.Identity()


class LearnedPositions(nn.Module):
    """One vector a position."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(length, dim))


class ValueEmbedding(nn.Module):
    """What a token adds to the values of every layer: one table's row, times the layer's gate."""

    def __init__(self, rows: int, shape: dict[str, Any]) -> None:
        super().__init__()
        self.heads = shape["n_kv_heads"]
        self.table = nn.Embedding(rows, self.heads * shape["head_dim"])
        self.gates = nn.Parameter(torch.ones(shape["n_layers"]))

    def forward(self, input_ids: Tensor) -> list[Tensor]:
        """(B, T) to (B, T, heads, head_dim) a layer."""
        rows = self.table(input_ids).unflatten(-1, (self.heads, -1))
        return [rows * gate for gate in self.gates.to(rows.dtype)]


class SlmForCausalLM(PreTrainedModel, GenerationMixin):
    """The whole model; a head that is tied is the token embedding's own weight."""

    config_class = SlmConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _no_split_modules = ("Block",)

    def __init__(self, config: SlmConfig) -> None:
        super().__init__(config)
        modules, params = config.slm["modules"], config.slm["params"]
        self.shape, self.max_seq_len = modules["transformer"], params["max_seq_len"]
        self.positions, self.softcap = modules["position_embedding"]["kind"], modules["output_projection"]["softcap"]
        rows, dim = params["vocab_size"], self.shape["dim"]
        self.token_embedding = nn.Embedding(rows, dim)
        self.value_embedding = ValueEmbedding(rows, self.shape) if modules["token_embedding"]["values"] else None
        self.position_embedding = LearnedPositions(self.max_seq_len, dim) if self.positions == "learned" else None
        self.transformer = Transformer(self.shape)
        tied = modules["output_projection"]["tie_weights"]
        self.output_projection = None if tied else nn.Linear(dim, rows, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.token_embedding

    def get_output_embeddings(self) -> nn.Module | None:
        return self.output_projection

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        **unread: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V) of the token after each; `labels` (B, T) are ids to learn, not shifted, -100 for none."""
        if past_key_values is None and (self.config.use_cache if use_cache is None else use_cache):
            past_key_values = DynamicCache()
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        length = input_ids.shape[1]
        places = torch.arange(past, past + length, device=input_ids.device)
        if position_ids is None and attention_mask is not None and attention_mask.dim() == 2:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
        positions = places[None] if position_ids is None else position_ids
        x = embedded = self.embed(input_ids, positions)
        rotation = self.rotation(positions, x.dtype) if self.positions == "rotary" else None
        mask = self.mask(places, past + length, attention_mask)
        values = None if self.value_embedding is None else self.value_embedding(input_ids)
        for layer, block in enumerate(self.transformer.blocks):
            x = block(x, embedded, rotation, mask, past_key_values, values and values[layer])
        hidden = self.transformer.final_norm(x)
        logits = self.head(hidden[:, -logits_to_keep:] if logits_to_keep else hidden)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)

    def head(self, hidden: Tensor) -> Tensor:
        """(..., C) to (..., V)."""
        head = self.token_embedding if self.output_projection is None else self.output_projection
        logits = linear(hidden, head.weight)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def embed(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """(B, T) to (B, T, C)."""
        x = self.token_embedding(input_ids)
        if self.position_embedding is not None:
            return x + self.position_embedding.weight[positions]
        if self.positions != "sinusoidal":
            return x
        dim = x.shape[-1]
        pairs = torch.arange(0, dim, 2, dtype=torch.float32, device=x.device)
        angle = positions[..., None].float() * torch.exp(pairs * (-math.log(10000.0) / dim))
        return x + torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[..., :dim].to(x.dtype)

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (B, 1, T, pairs)."""
        frequency = torch.tensor(self.config.rotary_frequencies, device=positions.device)
        angle, factor = positions[:, None, :, None].float() * frequency, self.config.rotary_factor
        return (angle.cos() * factor).to(dtype), (angle.sin() * factor).to(dtype)

    def mask(self, places: Tensor, end: int, attention_mask: Tensor | None) -> Tensor:
        """(B, 1, T, S) bool of what a query sees; padding is seen by itself alone."""
        key, query = torch.arange(end, device=places.device), places[:, None]
        seen = key <= query
        if self.shape["sliding_window"] is not None:
            seen &= key > query - self.shape["sliding_window"]
        if attention_mask is None:
            return seen[None, None]
        return seen & attention_mask[:, None, None, :end].bool() | (key == query)
