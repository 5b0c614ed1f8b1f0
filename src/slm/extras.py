"""Optional dependencies: one line that says which `pip install` mends a missing one."""

from __future__ import annotations

import importlib
from types import ModuleType

from slm.errors import UserError


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional module, or raise `UserError` naming the extra that brings it.

    Args:
        module: dotted name of the module, e.g. ``"wandb"``.
        extra: the extra of this package that installs it, e.g. ``"wandb"``.
        purpose: what wants it, for the message, e.g. ``"logger=wandb"``.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise UserError(f"{purpose} needs the package '{module.split('.')[0]}': pip install 'slm[{extra}]'") from None
