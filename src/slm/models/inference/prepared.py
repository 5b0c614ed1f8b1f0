"""A model's matrices in the form that decoding reads fastest: 8 or 4 bits, or bf16 in the kernel's own order."""

from typing import Any

from torch import Tensor, nn

from slm.errors import UserError
from slm.models.inference.packed_linear import NativeActivation, PackedLinear, packs
from slm.models.inference.quantized import Int4Linear, Int8Embedding, Int8Linear
from slm.models.inference.stack import StackedStep
from slm.models.modules.fused import kind_of
from slm.models.modules.transformer import MultiHeadAttention, Transformer

MODES = ("int8", "int4")


def prepare_for_inference(model: Any, quantize: str | None = None) -> None:
    """Replace the matrices of the transformer and of the head, in place. Without quantization nothing changes but the
    order of numbers in memory, and only where that is faster. With it the head and the table of embeddings, which are
    one where they are tied, have 8 bits in either mode. Raises `UserError` where there is no such mode, the device has
    no kernel for it, or the model no transformer."""
    if quantize is not None and quantize not in MODES:
        raise UserError(f"quantize must be one of {', '.join(MODES)}, or left out; got '{quantize}'")
    weight = model.head_weight
    if getattr(model, "inference_head", None) is not None:
        if quantize is not None:
            raise UserError(f"quantize={quantize}: this model's weights are quantized already; leave it out")
        return
    if quantize is None and not packs(weight):
        return
    if quantize == "int4" and weight.device.type not in ("cpu", "meta"):
        device = weight.device.type
        raise UserError(f"quantize=int4 has a kernel on the CPU only; this model is on {device}: quantize=int8")
    transformer = getattr(model, "transformer", None)
    if not isinstance(transformer, nn.Module):
        if quantize is None:
            return
        raise UserError(f"quantize={quantize}: {type(model).__name__} has no `transformer` with layers to replace")
    # a list of all modules would keep every replaced layer, and its weights, until the last one is done
    for parent in [module for module in transformer.modules() if type(module) is not nn.Linear]:
        if isinstance(parent, Transformer):
            parent.decode_step = StackedStep().train(parent.training)
        if isinstance(parent, MultiHeadAttention):
            parent.prepared = True
        for name, child in list(parent.named_children()):
            if name == "activation" and (kind := kind_of(child)) is not None:
                parent.activation = NativeActivation(child, kind)
            if type(child) is nn.Linear:
                setattr(parent, name, _replaced(child, quantize))
    if quantize is None:
        model.inference_head = PackedLinear(_as_layer(model.head_weight), shared=True)
    else:
        _quantize_tables(model)


def _as_layer(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    return layer


def _quantize_tables(model: Any) -> None:
    """The head, and the embedding with it or beside it."""
    head, embedding = model.head_weight, getattr(model, "token_embedding", None)
    model.inference_head = Int8Linear(_as_layer(head))
    if type(embedding) is nn.Embedding:
        tied = embedding.weight is head
        table = model.inference_head if tied else Int8Linear(_as_layer(embedding.weight))
        model.token_embedding = Int8Embedding(table, embedding.weight.dtype, tied)
        model.output_projection = None  # `inference_head` is all of it


def _replaced(layer: nn.Linear, mode: str | None) -> nn.Module:
    kinds: dict[str | None, type[nn.Module]] = {None: PackedLinear, "int8": Int8Linear, "int4": Int4Linear}
    return kinds[mode](layer)
