"""slm: train, fine-tune, evaluate and run small language models. Names are loaded on first use, torch with them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slm.cli.notebook import build as build
    from slm.cli.notebook import config as config
    from slm.cli.notebook import data as data
    from slm.generation.language_model import load as load
    from slm.registry import register_model as register_model

__version__ = "0.1.0"
__all__ = ["__version__", "build", "config", "data", "load", "register_model"]
_HOMES = {
    **dict.fromkeys(("build", "config", "data"), "slm.cli.notebook"),
    "load": "slm.generation.language_model",
    "register_model": "slm.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'slm' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
