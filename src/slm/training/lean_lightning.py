"""Lightning without what it draws in and does not need: half of the time until the first step.

`torchmetrics`, for whose `Metric` Lightning asks, imports scipy, transformers and matplotlib where they are installed;
Fabric and torch's optimizers import torch's compiler to tell what was compiled. Both packages are put in place and run
when somebody asks for more of them than that.
"""

import functools
import importlib.util
import logging
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from unittest import mock

_COMPILER = "torch._dynamo"


def import_lightning() -> None:
    """Import `pytorch_lightning` ahead of those who need it; what was imported before is left as it is."""
    if "torchmetrics" not in sys.modules:
        _defer_metrics()
    import torch  # noqa: F401  whose module the compiler is

    if _COMPILER not in sys.modules:
        _defer_compiler()
    import pytorch_lightning  # noqa: F401


class _Deferred(ModuleType):
    """A package whose own code is run when a name is asked for that is not there yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _deferred(name: str, **names: object) -> ModuleType:
    """Put the package `name` in place, with some `names` of it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _Deferred
    vars(package).update(names)
    sys.modules[name] = package
    return package


def _defer_metrics() -> None:
    package = _deferred("torchmetrics", _logger=logging.getLogger("torchmetrics"))
    from lightning_utilities.core.imports import RequirementCache

    available = RequirementCache.__bool__

    def without_plots(cache: RequirementCache) -> bool:
        return not (cache.requirement == "matplotlib" and "matplotlib" not in sys.modules) and available(cache)

    with mock.patch.object(RequirementCache, "__bool__", without_plots):
        importlib.import_module("torchmetrics.utilities")
        collections, metric = (importlib.import_module(f"torchmetrics.{name}") for name in ("collections", "metric"))
    vars(package).update(Metric=metric.Metric, MetricCollection=collections.MetricCollection)


def _defer_compiler() -> None:
    compiled = _Compiled("OptimizedModule", (), {})
    _deferred(_COMPILER, OptimizedModule=compiled, disable=_disable, graph_break=lambda *_: None)
    sys.meta_path.insert(0, _PackageFirst())


class _PackageFirst(MetaPathFinder):
    """Runs the compiler's package ahead of the first of its modules that is imported, as they rely on."""

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if not name.startswith(f"{_COMPILER}."):
            return None
        sys.meta_path.remove(self)
        if isinstance(package := sys.modules[_COMPILER], _Deferred):  # else it is being run, for a name of its own
            _ = package.config  # a name that is there once it was run
        return ModuleSpec(name, _AsImported(sys.modules[name])) if name in sys.modules else None


class _AsImported(Loader):
    """Gives a module that was imported while its spec was looked for."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Compiled(type):
    """What `torch.compile` makes of a module: nothing is that as long as the compiler was not asked for."""

    def __instancecheck__(cls, instance: object) -> bool:
        real = vars(sys.modules[_COMPILER])["OptimizedModule"]
        return real is not cls and isinstance(instance, real)


def _disable(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """`torch._dynamo.disable`, which asks the compiler once there is one."""

    @functools.wraps(function)
    def called(*given: Any, **named: Any) -> Any:
        disable = vars(sys.modules[_COMPILER])["disable"]
        return (function if disable is _disable else disable(function, *args, **kwargs))(*given, **named)

    return called
