"""The sizes of a ladder by one dial, the depth, each with its own width, batch and steps. Imports no torch.

| what | rule | source |
| --- | --- | --- |
| width | 64 a layer, heads 64 wide | nanochat; the loss hardly depends on it (Kaplan et al. 2020, fig. 5) |
| tokens | 20 a parameter | Hoffmann et al. 2022, table 3 |
| batch | 0.58 tokens ** 0.571 | Li et al. 2025 ("Step Law") |
| rate | falls as one over the width | `optimizer.lr=auto`: Yang et al. 2021, table 3 |

Parameters are those of the blocks, 12 layers width² (Kaplan et al. 2020, table 1), so that a ladder is the same
whatever the vocabulary.
"""

from collections.abc import Callable

HEAD_DIM = 64
TOKENS_PER_PARAMETER = 20.0
_BATCH, _BATCH_EXPONENT = 0.58, 0.571


def width(depth: int) -> int:
    """Of the residual stream, ``model.modules.transformer.dim``."""
    return HEAD_DIM * depth


def parameters(depth: int) -> int:
    """Of all blocks."""
    return 12 * depth * width(depth) ** 2


def tokens(depth: int, per_parameter: float = TOKENS_PER_PARAMETER) -> float:
    """To train on."""
    return per_parameter * parameters(depth)


def windows(depth: int, seq_len: int, per_parameter: float = TOKENS_PER_PARAMETER) -> int:
    """Of an optimizer step, ``trainer.global_batch_size``: a multiple of 8, which devices and micro-batches share."""
    batch = _BATCH * tokens(depth, per_parameter) ** _BATCH_EXPONENT
    return max(8, 8 * round(batch / seq_len / 8))


def steps(depth: int, seq_len: int, per_parameter: float = TOKENS_PER_PARAMETER) -> int:
    """``trainer.max_steps``."""
    return max(1, round(tokens(depth, per_parameter) / (windows(depth, seq_len, per_parameter) * seq_len)))


RULES: dict[str, Callable[..., int]] = {"width": width, "windows": windows, "steps": steps}
"""By the name that ``${ladder:NAME,…}`` calls."""
