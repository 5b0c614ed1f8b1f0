"""What a model computes on its way: hidden states, attention maps, what layers write, gradients, the logit lens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from slm.errors import UserError
from slm.files.writing import new_file
from slm.models.contract import CausalLM
from slm.models.modules.transformer import MultiHeadAttention

Scalar = Callable[[Tensor], Tensor]
"""Of logits (B, T, V), one number."""


@dataclass(frozen=True)
class Trace:
    """One forward pass. A stack has L layers; tensors are in the model's dtype and on its device, of B texts of T."""

    input_ids: Tensor  # (B, T) int64
    hidden: tuple[Tensor, ...]  # L + 1 of (B, T, C): what the first block reads, then the stream behind each block
    final: Tensor  # (B, T, C): what the head reads, the last of these behind the final norm
    logits: Tensor  # (B, T, V)
    attention_out: tuple[Tensor, ...]  # L of (B, T, C): what each attention writes into the stream
    mlp_out: tuple[Tensor, ...]  # L of (B, T, C)
    attention: tuple[Tensor, ...]  # L of (B, H, T, T), how much query t takes of key s; () where they were left out
    gradients: dict[str, Tensor]  # of the scalar asked for, by the names that `named` gives; {} where none was
    model: CausalLM = field(repr=False, compare=False)
    text_of: Callable[[int], str] = field(default=str, repr=False, compare=False)  # of a token id

    @property
    def tokens(self) -> list[str]:
        """Of the first text, each by itself."""
        return [self.text_of(token) for token in self.input_ids[0].tolist()]

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor by the name it is saved under: ``hidden.0``, ``attention.3``, ``gradient.hidden.0``, …"""
        yield "input_ids", self.input_ids
        for name in ("hidden", "attention", "attention_out", "mlp_out"):
            yield from ((f"{name}.{layer}", tensor) for layer, tensor in enumerate(getattr(self, name)))
        yield "final", self.final
        yield "logits", self.logits
        yield from ((f"gradient.{name}", tensor) for name, tensor in self.gradients.items())

    @torch.no_grad()
    def logit_lens(self, layer: int) -> Tensor:
        """(B, T, V): what the model would say if ``hidden[layer]`` were its last (nostalgebraist 2020, "interpreting
        GPT: the logit lens"): through the final norm and the head. The last layer's are the logits."""
        final_norm: nn.Module = self.model.transformer.final_norm  # type: ignore[attr-defined]
        return self.model.head(final_norm(self.hidden[layer]))

    def said(self, layer: int) -> list[tuple[str, float]]:
        """By the logit lens, behind each token of the first text the likeliest next one, and its probability."""
        probability, likeliest = self.logit_lens(layer)[0].float().softmax(dim=-1).max(dim=-1)
        return [(self.text_of(i), p) for i, p in zip(likeliest.tolist(), probability.tolist(), strict=True)]

    def save(self, file: str | Path) -> None:
        """Write all of `named` as safetensors, whole or not at all."""
        from safetensors.torch import save

        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.named()}
        with new_file(Path(file).expanduser()) as out:
            out.write(save(tensors))


def trace(
    model: CausalLM, input_ids: Tensor, *, attention: bool = True, gradient_of: str | Scalar | None = None
) -> Trace:
    """Run `model`, in eval mode, over ids (B, T) and keep what it computes.

    Args:
        attention: keep the maps too, of L x H x T x T numbers; the mixing is then done by these very maps, in the open.
        gradient_of: a function of the logits (B, T, V) to one number, or ``"loss"``, the mean negative log-likelihood
            of each next token in nats; how that changes with each tensor is kept.

    Raises:
        UserError: the model has no `transformer` with blocks, does not take these ids, or is asked for gradients that
            its weights do not give.
    """
    _check_ids(model, input_ids)
    transformer = _transformer_of(model)
    scalar = None if gradient_of is None else _scalar(model, gradient_of, input_ids)
    seen: dict[str, Tensor] = {}
    with torch.set_grad_enabled(scalar is not None), _watched(transformer, seen, attention, scalar is not None):
        logits = model.head(model.hidden_states(input_ids))
    seen["logits"] = logits
    gradients = {} if scalar is None else _gradients(scalar(logits), seen)
    kept = {name: tensor.detach() for name, tensor in seen.items()}
    n_layers = len(transformer.blocks)  # type: ignore[arg-type]

    def layers(name: str, n: int = n_layers) -> tuple[Tensor, ...]:
        return tuple(kept[key] for layer in range(n) if (key := f"{name}.{layer}") in kept)

    return Trace(
        input_ids=input_ids,
        hidden=layers("hidden", n_layers + 1),
        final=kept["final"],
        logits=kept["logits"],
        attention_out=layers("attention_out"),
        mlp_out=layers("mlp_out"),
        attention=layers("attention"),
        gradients=gradients,
        model=model,
    )


@contextmanager
def _watched(transformer: Any, seen: dict[str, Tensor], attention: bool, as_root: bool) -> Iterator[None]:
    """Into `seen`, by name, what the parts compute until the block ends. `as_root`: what the first block reads becomes
    what gradients are taken down to."""

    def keep(name: str, _module: nn.Module, _read: Any, written: Tensor) -> None:
        seen[name] = written

    def enter(_module: nn.Module, read: tuple[Any, ...]) -> tuple[Any, ...]:
        embedded = read[0].detach().requires_grad_() if as_root else read[0]
        seen["hidden.0"] = embedded
        return (embedded, *read[1:])

    with ExitStack() as until_the_end:
        hooks = [transformer.register_forward_pre_hook(enter)]
        hooks.append(transformer.register_forward_hook(partial(keep, "final")))
        for layer, block in enumerate(transformer.blocks):
            hooks.append(block.register_forward_hook(partial(keep, f"hidden.{layer + 1}")))
            hooks.append(block.attention.register_forward_hook(partial(keep, f"attention_out.{layer}")))
            hooks.append(block.mlp.register_forward_hook(partial(keep, f"mlp_out.{layer}")))
            if attention and isinstance(block.attention, MultiHeadAttention):
                block.attention.watch = partial(seen.__setitem__, f"attention.{layer}")
                until_the_end.callback(delattr, block.attention, "watch")
        for hook in hooks:
            until_the_end.callback(hook.remove)
        yield


def _gradients(value: Tensor, seen: dict[str, Tensor]) -> dict[str, Tensor]:
    names = [name for name, tensor in seen.items() if tensor.requires_grad]
    found = torch.autograd.grad(value, [seen[name] for name in names], allow_unused=True)
    return {name: gradient for name, gradient in zip(names, found, strict=True) if gradient is not None}


def _check_ids(model: CausalLM, input_ids: Tensor) -> None:
    longest, known = model.config.params.max_seq_len, model.config.vocab_size
    if not 0 < input_ids.shape[1] <= longest:
        raise UserError(f"trace: the text has {input_ids.shape[1]} tokens; this model takes 1 to {longest}: shorten it")
    if unknown := [i for i in input_ids.flatten().tolist() if not 0 <= i < known]:
        raise UserError(f"trace: the text has the token id {unknown[0]}; this model's are 0 to {known - 1}")


def _transformer_of(model: CausalLM) -> nn.Module:
    transformer = getattr(model, "transformer", None)
    parts = ("attention", "mlp")
    blocks = getattr(transformer, "blocks", ())
    if not blocks or not all(hasattr(block, part) for block in blocks for part in parts):
        raise UserError(
            f"trace: {type(model).__name__} has no `transformer` with `blocks` of `attention` and `mlp`; hooks of "
            "torch's on its own modules show what they compute"
        )
    return transformer  # type: ignore[return-value]


def _scalar(model: CausalLM, gradient_of: str | Scalar, input_ids: Tensor) -> Scalar:
    if quantized := next((m for m in model.modules() if hasattr(m, "codes")), None):  # type: ignore[attr-defined]
        raise UserError(
            f"trace: no gradient flows through quantized weights ({type(quantized).__name__}); load the model without "
            "quantize=…, or leave gradient_of out"
        )
    if callable(gradient_of):
        return gradient_of
    if gradient_of != "loss":
        raise UserError(f"trace: gradient_of is a function of the logits, or 'loss'; got '{gradient_of}'")
    if input_ids.shape[1] < 2:
        raise UserError("trace: gradient_of='loss' is of next tokens; give two tokens or more")
    return lambda logits: cross_entropy(logits[:, :-1].flatten(0, 1).float(), input_ids[:, 1:].flatten())
