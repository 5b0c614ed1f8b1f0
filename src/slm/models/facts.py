"""What a model is made of and what it costs, in numbers."""

from torch import nn

from slm.models.config import ModelConfig


def training_flops_per_token(model: nn.Module) -> float:
    """Floating-point operations of one token's forward and backward pass at the model's full length.
    ``6 N + 12 L H D T`` with N the parameters that take part in matrix products, H heads of width D and T positions
    seen (Chowdhery et al. 2022, appendix B); embedding look-ups are none, a tied head counts once."""
    config: ModelConfig = model.config  # type: ignore[assignment]
    shape = config.modules.transformer
    in_products = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    if config.modules.output_projection.tie_weights:
        in_products += config.padded_vocab_size * shape.dim
    seen = min(config.params.max_seq_len, shape.sliding_window or config.params.max_seq_len)
    return 6.0 * in_products + 12.0 * shape.n_layers * shape.n_heads * shape.head_dim * seen


def summarize(model: nn.Module) -> str:
    """One line a top module with its parameters and whether it is frozen, then the total; shared ones count once."""
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
