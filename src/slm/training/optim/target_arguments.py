"""What a class or function named by its path takes, read from its source: importing torch to see it takes seconds."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from slm.schema import unknown_key


def argument_problems(node: Mapping[str, Any], where: str, given: Collection[str] = ()) -> list[str]:
    """A line for each argument that the ``_target_`` of `node` does not take, as far as its source tells.

    Args:
        node: ``_target_`` and arguments.
        where: dotted name of `node` in the configuration.
        given: arguments that the program itself passes.
    """
    takes = arguments_of(node["_target_"])
    if takes is None:
        return []
    own = sorted(key for key in node.keys() - takes if not (key.startswith("_") and key.endswith("_")))
    return [unknown_key(f"{where}.{key}", takes - set(given)) for key in own]


def arguments_of(target: str) -> frozenset[str] | None:
    """Names of the arguments of a class or function, all but `self`; None where its source does not tell.

    Args:
        target: its dotted path, e.g. ``torch.optim.AdamW``; names that a module takes from another are followed.
    """
    function = signature_of(target)
    return None if function is None else _names(function, given=int(function.name == "__init__"))


def signature_of(target: str) -> ast.FunctionDef | None:
    """The function, or ``__init__`` of the class, as it is written; None where its source does not tell."""
    module, _, name = target.rpartition(".")
    try:
        found = _definition(module, name, set())
    except (OSError, SyntaxError, ValueError):
        return None
    if isinstance(found, ast.ClassDef):
        found = next(
            (node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"), None
        )
    return found if isinstance(found, ast.FunctionDef) else None


def _names(function: ast.FunctionDef, given: int) -> frozenset[str] | None:
    if function.decorator_list:
        return None
    takes = function.args
    if takes.vararg or takes.kwarg:
        return None
    return frozenset(argument.arg for argument in [*takes.posonlyargs, *takes.args][given:] + takes.kwonlyargs)


def _definition(module: str, name: str, seen: set[tuple[str, str]]) -> ast.stmt | None:
    """The statement that defines `name`, in `module` or in the one it takes it from."""
    file = _source(module)
    if file is None or (module, name) in seen:
        return None
    seen.add((module, name))
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
                    return _definition(_absolute(node, package), alias.name, seen)
    return None


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if node.level == 0:
        return str(node.module)
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def _source(module: str) -> Path | None:
    """The file of a module; no package on the way is imported."""
    top, *below = module.split(".")
    spec = find_spec(top) if top else None
    for depth in range(len(below)):
        if spec is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *below[: depth + 1]]), spec.submodule_search_locations or [])
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
