"""slm-convert: a model from one format to another."""

from __future__ import annotations

import os
from typing import Any

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.model_writers import DTYPES, ExportSettings, writer_of
from slm.cli.result import Result
from slm.errors import UserError, refuse
from slm.schema import checked, together


def convert(_: dict[str, Any], settings: ExportSettings) -> Result:
    """The command's task."""
    out = settings.out_path
    if os.path.lexists(out):
        raise UserError(f"out: '{out}' exists already; remove it or name another folder")
    refuse(_problems(settings))
    write, parameters, dtype = writer_of(settings)

    from safetensors import SafetensorError

    try:
        more = write(out) or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"out: cannot write '{out}' ({error}); make room or name another place") from error
    return Result({"out": str(out), "format": settings.to, "parameters": parameters, "dtype": dtype, **more})


def _problems(settings: ExportSettings) -> list[str]:
    """What does not go together, a line each."""
    problems = []
    of_format = {"slm": ("int8", "int4"), "gguf": ("f16", "bf16", "q8_0", "q4_0")}
    allowed = ("none", *of_format.get(settings.to, ()))
    if settings.quantize not in (None, *allowed):
        formats = [to for to, modes in of_format.items() if settings.quantize in modes]
        problems.append(
            f"quantize={settings.quantize} is a form of to={formats[0]}; to={settings.to} takes {', '.join(allowed)}"
        )
    if settings.quantize in DTYPES and settings.dtype is not None:
        problems.append(f"quantize={settings.quantize} names the dtype already; leave dtype out")
    if settings.to == "gguf" and str(settings.out).endswith(".gguf"):
        problems.append(f"out: to=gguf makes a folder, with model.gguf and a Modelfile; name one, not '{settings.out}'")
    if settings.license is not None and settings.to not in ("hf", "revisions"):
        problems.append(f"license is told by a model card, and to={settings.to} writes none; leave it out")
    if settings.to == "peft" and settings.dtype is not None:
        problems.append("to=peft writes what was trained as it was; leave dtype out")
    return problems


def _checked(values: dict[str, Any]) -> ExportSettings:
    from slm.training.run_config import import_plugins

    return together(lambda: checked(ExportSettings, values), lambda: import_plugins(values["plugins"]))[0]


_PATHS = ("source", "base", "out", "mirror")
main = entry_point(Command("convert", convert, _checked, paths=_PATHS), __name__)
