"""Who may import whom, and what an import may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import slm

ROOT = Path(slm.__file__).parent
LAYERS = {
    **dict.fromkeys(("registry", "errors", "extras", "schema", "notices", "new_folder", "new_file", "json_file"), 0),
    **dict.fromkeys(("web_address", "public_address", "stall_watch", "http_get", "partial_file", "download"), 0),
    **dict.fromkeys(("flush", "nearest", "other_names"), 0),
    **dict.fromkeys(("bounded_text", "yaml_file", "masking"), 0),
    **dict.fromkeys(("tokenizers", "models"), 1),
    **dict.fromkeys(("data", "weights"), 2),
    "bundle": 3,
    "sources": 4,
    "generation": 5,
    "training": 6,
    "cli": 7,
}
FILES = sorted(file for file in ROOT.rglob("*.py") if file != ROOT / "__init__.py")  # the front door opens on all


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import of a file, also of those inside functions and for types only."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            module = str(node.module)
            for dotted in (f"{module}.{alias.name}" for alias in node.names):
                yield node.lineno, dotted if is_module(dotted) else module


def is_module(dotted: str) -> bool:
    place = ROOT.parent.joinpath(*dotted.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def test_an_import_points_to_a_lower_layer_or_stays_in_its_package() -> None:
    """The order in which data flows; both big import cycles of this field's codebases broke it first."""
    wrong = []
    for file in FILES:
        package = file.relative_to(ROOT).parts[0].removesuffix(".py")
        assert package in LAYERS, f"{package} has no layer"
        for line, module in imported(file):
            root, _, rest = module.partition(".")
            target = rest.split(".")[0]
            if root != "slm" or not target or target == package:
                continue
            if LAYERS[target] >= LAYERS[package] and not LAYERS[target] == LAYERS[package] == 0:
                wrong.append(f"{file.relative_to(ROOT)}:{line} imports {module}")
    assert wrong == []


def test_packages_are_not_imported_as_a_whole() -> None:
    """Inside, one imports the module that holds a thing: names taken from an `__init__` make cycles."""
    packages = {
        ".".join(("slm", *folder.relative_to(ROOT).parts)) for folder in (f.parent for f in ROOT.rglob("*/__init__.py"))
    }
    wrong = [
        f"{file.relative_to(ROOT)}:{line}" for file in FILES for line, module in imported(file) if module in packages
    ]
    assert wrong == []


def test_the_configuration_library_stays_at_the_edge() -> None:
    """Below the command line, `runner.py` and what makes its parts, functions take typed arguments."""
    at_the_edge = {"cli", "training/runner.py", "training/run_parts.py"}
    wrong = []
    for file in FILES:
        place = file.relative_to(ROOT)
        if place.parts[0] in at_the_edge or place.as_posix() in at_the_edge:
            continue
        wrong += [
            f"{place}:{line}" for line, module in imported(file) if module.split(".")[0] in ("hydra", "omegaconf")
        ]
    assert wrong == []


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "pytorch_lightning", "lightning_fabric", "hydra", "omegaconf", "transformers"}


def test_import_slm_is_cheap() -> None:
    """No torch, no hydra, nothing but the standard library."""
    assert not loaded_by("import slm") & {*HEAVY, "pydantic", "numpy", "tokenizers"}


@pytest.mark.parametrize(
    "modules", ["slm.models.config, slm.data.config, slm.generation.config", "slm.training.run_config"]
)
def test_a_configuration_is_checked_without_torch(modules: str) -> None:
    """So that a typing error is answered in a blink, and `--help` in under a second."""
    assert not loaded_by(f"import {modules}") & HEAVY
