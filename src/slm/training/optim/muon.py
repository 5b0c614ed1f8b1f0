"""Muon: hidden matrices by orthogonalised momentum, everything else by AdamW, as one optimizer."""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from slm.models.kernels.library import multiplies_bf16
from slm.training.optim.parameter_groups import HIDDEN, TABLE, VECTOR

# Of p(x) = a x + b x^3 + c x^5, which brings every singular value near 1 in five steps (Jordan et al. 2024).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPS = 1e-7


class Muon(Optimizer):
    """``W <- W - lr sqrt(max(1, rows / columns)) orthogonal(momentum)`` (Jordan et al. 2024) for the weights of hidden
    layers, AdamW for tables, biases and gains.

    An orthogonal update of this scale changes what a layer gives by the same amount at any width (Bernstein and
    Newhouse 2024), so one `lr` serves all sizes; `adam_lr` follows AdamW's rule.
    Matrices of like shape are orthogonalised in one batch: small ones several times as fast as one by one.
    """

    takes_roles = True
    settings_of_roles: ClassVar[dict[str, tuple[str, ...]]] = {
        HIDDEN: ("lr", "momentum", "ns_steps"),
        TABLE: ("adam_lr", "betas", "eps"),
        VECTOR: ("adam_lr", "betas", "eps"),
    }

    def __init__(
        self,
        params: list[dict[str, Any]],  # groups with a ``role``, as `parameter_groups` makes them
        lr: float = 0.02,  # of the hidden matrices
        adam_lr: float = 1e-3,  # of everything else
        momentum: float = 0.9,  # of the average of gradients, with Nesterov's look-ahead
        ns_steps: int = 5,  # of Newton and Schulz
        betas: tuple[float, float] = (0.9, 0.95),  # AdamW's, as are eps and fused
        eps: float = 1e-10,
        weight_decay: float = 0.0,  # decoupled, where a group has none of its own
        fused: bool | None = None,  # then a step also heeds ``found_inf``, not 0 where the gradient is not finite
    ) -> None:
        if any("role" not in group for group in params):
            raise ValueError("Muon needs groups with a role (hidden, table or vector); make them with parameter_groups")
        if not 0 <= momentum < 1 or ns_steps < 1:
            raise ValueError(f"momentum must be from 0 on and below 1, ns_steps at least 1; got {momentum}, {ns_steps}")
        of_hidden, of_others = {"lr": lr, "momentum": momentum, "ns_steps": ns_steps}, {"lr": adam_lr}
        groups = [{**group, **(of_hidden if group["role"] == HIDDEN else of_others)} for group in params]
        super().__init__(groups, {"weight_decay": weight_decay})
        others = [group for group in self.param_groups if group["role"] != HIDDEN]
        # it completes those very dictionaries with its settings, and from then on steps on them
        self._adam = AdamW(others, betas=betas, eps=eps, fused=fused) if others else None
        self._step_supports_amp_scaling = bool(fused)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        for group in self.param_groups:
            if group["role"] == HIDDEN:
                self._step_matrices(group, None if found_inf is None else found_inf == 0)
        if self._adam is not None:
            if found_inf is not None:
                self._adam.found_inf = found_inf  # type: ignore[attr-defined]
            # a loaded state is made of other dictionaries
            self._adam.state = self.state
            self._adam.param_groups = [group for group in self.param_groups if group["role"] != HIDDEN]
            self._adam.step()
        return loss

    def _step_matrices(self, group: dict[str, Any], good: Tensor | None) -> None:
        """Nothing changes where `good` is given and false."""
        weights = [p for p in group["params"] if p.grad is not None]
        if not weights:
            return
        gradients = [p.grad for p in weights]
        for p in weights:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        averages = [self.state[p]["momentum"] for p in weights]
        kept: Tensor | float = 1 - group["lr"] * group["weight_decay"]
        if good is not None:
            gradients = [torch.where(good, g, average) for g, average in zip(gradients, averages, strict=True)]
            kept = torch.where(good, kept, 1.0)
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
        torch._foreach_mul_(weights, kept)
        updates = orthogonalized(list(ahead), group["ns_steps"])
        if good is not None:
            torch._foreach_mul_(updates, good.to(updates[0].dtype))
        for p, update in zip(weights, updates, strict=True):
            rows, columns = p.shape
            p.add_(update, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))


def orthogonalized(matrices: list[Tensor], steps: int) -> list[Tensor]:
    """U S' V^T for each U S V^T, S' within about 0.7 to 1.2: Newton-Schulz steps, in bf16 where it is native."""
    lying = [matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    batches: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, matrix in enumerate(lying):
        batches[tuple(matrix.shape)].append(index)
    result = list(matrices)
    for indices in batches.values():
        stacked = torch.stack([lying[i] for i in indices])
        for i, found in zip(indices, _newton_schulz(stacked, steps), strict=True):
            result[i] = found if lying[i] is matrices[i] else found.mT
    return result


def _newton_schulz(x: Tensor, steps: int) -> Tensor:
    """(n, r, c) with r <= c to the same in fp32."""
    a, b, c = _COEFFICIENTS
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_EPS)
    x = x.to(_dtype(x.device))
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.float()


def _dtype(device: torch.device) -> torch.dtype:
    native = device.type != "cpu" or multiplies_bf16()
    return torch.bfloat16 if native else torch.float32
