"""slm: train, fine-tune, evaluate and run small language models.

The names here are loaded on first use, so ``import slm`` is cheap and imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slm.generation.language_model import load as load
    from slm.registry import register_model as register_model

__version__ = "0.1.0"
__all__ = ["__version__", "load", "register_model"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from slm.generation.language_model import load

        return load
    if name == "register_model":
        from slm.registry import register_model

        return register_model
    raise AttributeError(f"module 'slm' has no attribute '{name}'")
