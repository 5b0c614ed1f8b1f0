"""What may be spent, and the published rules by which it is spent best. Imports no torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from slm.errors import UserError
from slm.training.config import seconds_of

TOKENS_PER_PARAMETER = 20.0
SIZE_RULE = "C = 6 N D with D = 20 N tokens (Hoffmann et al. 2022, Chinchilla, table 3)"
BATCH_RULE = "0.292 C^0.3271 tokens a step (Bi et al. 2024, DeepSeek LLM, eq. 1)"
_FLOPS = re.compile(r"\d+(?:\.\d*)?(?:[eE]\+?\d+)?")


@dataclass(frozen=True)
class Budget:
    """What may be spent."""

    amount: float
    unit: Literal["s", "FLOPs"]

    def flops(self, per_second: float) -> float:
        return self.amount * per_second if self.unit == "s" else self.amount


def batch_tokens(flops: float) -> float:
    """Tokens of an optimizer step where `flops` are spent in all."""
    return 0.292 * flops**0.3271


def budget_of(value: object) -> Budget | None:
    """``30min`` (a time, as ``trainer.max_time`` takes it) or ``1e15`` (operations); `UserError` for anything else."""
    if value is None:
        return None
    if isinstance(value, str) and _FLOPS.fullmatch(value.strip()):
        value = float(str(value))
    unit: Literal["s", "FLOPs"] = "FLOPs"
    if isinstance(value, int | float) and not isinstance(value, bool):
        amount = float(value)
    else:
        try:
            amount, unit = float(seconds_of(value) or 0), "s"
        except ValueError:
            raise UserError(f"budget must be a time (30min, 2h) or a number of FLOPs (1e15); got {value!r}") from None
    if not (math.isfinite(amount) and amount > 0):
        raise UserError(f"budget must be more than nothing; got {value!r}")
    return Budget(amount, unit)
