"""Ranges of what a class named by its path takes, where its annotations are types of `slm.schema`.

They are read from its source, since importing torch to see them takes seconds.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from slm import schema
from slm.training.optim.target_arguments import signature_of

_RANGES = {name: getattr(schema, name) for name in schema.RANGES}


def range_problems(node: Mapping[str, Any], where: str) -> list[str]:
    """A line for each argument of the ``_target_`` of `node` that is out of the range that its annotation says.

    Args:
        node: ``_target_`` and arguments.
        where: its dotted name in the configuration.
    """
    function = signature_of(node["_target_"])
    if function is None:
        return []
    takes = function.args
    arguments = [*takes.posonlyargs, *takes.args, *takes.kwonlyargs]
    hints = {argument.arg: _range(argument.annotation) for argument in arguments}
    return [
        problem
        for name, value in node.items()
        if (hint := hints.get(name)) is not None
        for problem in schema.value_problems(hint, value, f"{where}.{name}")
    ]


def _range(annotation: ast.expr | None) -> Any:
    """What ``Count`` or ``Count | None`` stands for; None for an annotation of another kind."""
    if isinstance(annotation, ast.Name):
        return _RANGES.get(annotation.id)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.right, ast.Constant):
        left = _range(annotation.left)
        return left | None if left is not None and annotation.right.value is None else None
    return None
