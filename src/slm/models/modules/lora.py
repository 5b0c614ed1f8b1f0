"""Low-rank adaptation: weights stay, a product of two thin matrices beside each of them is trained."""

import math
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from slm.errors import UserError, did_you_mean


class LoraLinear(nn.Linear):
    """``W x + b + scale * B A dropout(x)`` (Hu et al. 2021, eq. 3), with `W` and `b` those of the layer it replaces.
    These are shared, not copied, and keep their names in the `state_dict`; ``lora_a`` (rank, in) and ``lora_b``
    (out, rank) are added. B begins as zeros, so the model begins as it was."""

    def __init__(self, source: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__(source.in_features, source.out_features, bias=source.bias is not None, device="meta")
        self.weight, self.bias = source.weight, source.bias
        self.scale = scale
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.lora_a = nn.Parameter(torch.empty(rank, source.in_features, device=source.weight.device))
        self.lora_b = nn.Parameter(torch.zeros(source.out_features, rank, device=source.weight.device))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # as Hu et al.'s own code and peft have it

    def forward(self, x: Tensor) -> Tensor:
        update = linear(linear(self.dropout(x), self.lora_a), self.lora_b)
        return torch.add(linear(x, self.weight, self.bias), update, alpha=self.scale)


def add_lora(
    model: nn.Module,
    rank: int,
    scale: float,
    dropout: float = 0.0,
    targets: str | Collection[str] = "all",
    also_train: Collection[str] = (),
) -> None:
    """Freeze a registered `model` and put a `LoraLinear` in the place of its linear layers but the head. `targets` are
    names of layers, as their parents call them (``qkv``), or ``all``; modules of the names `also_train` are trained
    whole. Raises `UserError` where there is no layer or module of a name."""
    head: Tensor = model.head_weight  # type: ignore[assignment]
    named = [(*path.rpartition(".")[::2], module) for path, module in model.named_modules()]
    layers = [it for it in named if type(it[2]) is nn.Linear and it[2].weight is not head]
    names = {name for _, name, _ in layers}
    chosen = names if targets == "all" else set(targets)
    _check_names("adapter.targets", chosen, names)
    with_weights = {name for _, name, module in named if any(True for _ in module.parameters(recurse=False))}
    _check_names("adapter.also_train", also_train, with_weights)
    model.requires_grad_(False)
    for parent, name, layer in layers:
        if name in chosen:
            setattr(model.get_submodule(parent), name, LoraLinear(layer, rank, scale, dropout))
    for _, name, module in named:
        if name in also_train:
            module.requires_grad_(True)


def base_names(model: nn.Module) -> set[str]:
    """Names of the tensors that training leaves as the source has them; none of a model without LoRA."""
    if not any(True for _ in _adapted(model)):
        return set()
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The `state_dict` of a plain model that computes the same; the model itself stays as it is."""
    state: dict[str, Tensor] = model.state_dict()
    for path, layer in _adapted(model):
        del state[f"{path}.lora_a"], state[f"{path}.lora_b"]
        state[f"{path}.weight"] = torch.addmm(layer.weight, layer.lora_b, layer.lora_a, alpha=layer.scale)
    return state


def _adapted(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    return ((path, module) for path, module in model.named_modules() if isinstance(module, LoraLinear))


def _check_names(setting: str, given: Collection[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            raise UserError(
                f"{setting}: the model has no '{name}'{did_you_mean(name, known)} (it has: {', '.join(sorted(known))})"
            )
