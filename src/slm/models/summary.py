"""What a model is made of, for a person to read."""

from __future__ import annotations

from torch import nn


def summarize(model: nn.Module) -> str:
    """One line a top module with its parameters and whether it is frozen, then the total.

    Shared parameters are counted once, where they first stand.
    """
    seen: set[int] = set()
    rows: list[tuple[str, int, str]] = []
    for name, module in model.named_children():
        parameters = [p for p in module.parameters() if id(p) not in seen]
        seen.update(id(p) for p in parameters)
        if parameters:
            frozen = "  frozen" if not any(p.requires_grad for p in parameters) else ""
            rows.append((name, sum(p.numel() for p in parameters), frozen))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(count for _, count, _ in rows)
    rows.append(("total", total, "" if trained == total else f"  ({trained:,} trained)"))
    return "\n".join(f"  {name:<20}{count:>15,}{note}" for name, count, note in rows)
