"""Optional dependencies: one line that says which `pip install` mends a missing one."""

import importlib
import importlib.util
import sys
from types import ModuleType

from slm.errors import UserError


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional module, or raise `UserError` naming the extra that brings it; `purpose` is what wants it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module.split(".")[0], module):
            raise
        raise _missing(error.name, extra, purpose) from None


def check_installed(package: str, extra: str, purpose: str) -> None:
    """Raise `UserError` naming the extra that brings `package`, if it is not there; imports nothing."""
    if sys.modules.get(package) is None and importlib.util.find_spec(package) is None:
        raise _missing(package, extra, purpose)


def _missing(package: str, extra: str, purpose: str) -> UserError:
    return UserError(f"{purpose} needs the package '{package}': pip install 'slm[{extra}]'")
