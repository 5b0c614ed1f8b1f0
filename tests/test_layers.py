"""Who may import whom, and what an import may cost."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import slm

ROOT = Path(slm.__file__).parent
REPOSITORY = Path(__file__).parents[1]
# From the ground up: a room imports from rooms above it in this list, and from itself. A name is a package or a
# module; a file belongs to the longest name that it lies under.
FLOORS = (
    "suggest",
    "errors",
    "notices",
    "progress",
    "extras",
    "masking",
    "registry",
    "schema",
    "files",
    "plots",
    "fetch",
    "tokenizers",
    "models.config",
    "models.contract",
    "models.kernels",
    "models.modules",
    "models.inference",
    "models.meta_arch",
    "models.flops",
    "models",
    "chat",
    "weights.tensor_source",
    "weights.name_table",
    "weights.families",
    "weights.pretrained",
    "weights.own_sampling",
    "weights.gguf",
    "weights",
    "weights.export",
    "data.faults",
    "data.config",
    "data.parts",
    "data.documents",
    "data.corpora",
    "data.store",
    "data.batches",
    "scoring",
    "generation",
    "generation.repl",
    "training.save_points",
    "training.config",
    "training.optim",
    "training.lightning_seams",
    "training.run",
    "training.figures",
    "training.lit_module",
    "training.watch",
    "training.answers",
    "training.tasks.task",
    "training.tasks.preferences",
    "training.tasks",
    "training",
    "evaluation",
    "serve",
    "study.plan",
    "study",
    "study.sweep",
    "study.ladder",
    "study.report",
    "cli",
)
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


def room_of(module: str) -> str:
    """The entry of `FLOORS` that a dotted module, without `slm.`, belongs to."""
    names = [name for name in FLOORS if module == name or module.startswith(f"{name}.")]
    assert names, f"{module} stands on no floor"
    return max(names, key=len)


def test_an_import_points_to_a_lower_floor_or_stays_in_its_room() -> None:
    """The order in which data flows, inside packages too, so that no two import each other."""
    wrong = set()
    for file in FILES:
        place = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if file.name == "__init__.py" and place not in FLOORS:
            continue  # a package whose rooms stand on floors of their own
        for _, module in imported(file):
            target = module.removeprefix("slm.")
            if module.partition(".")[0] != "slm" or target in ("slm", "__version__"):
                continue
            here, there = room_of(place), room_of(target)
            if here != there and FLOORS.index(there) >= FLOORS.index(here):
                wrong.add(f"{place} -> {target}")
    assert wrong == set()


def test_no_files_import_each_other_in_a_circle() -> None:
    """Inside a room, too."""
    names = {".".join(("slm", *file.relative_to(ROOT).with_suffix("").parts)): file for file in FILES}
    order = graphlib.TopologicalSorter(
        {
            name: {module for _, module in imported(file) if module in names.keys() - {name}}
            for name, file in names.items()
        }
    )
    order.prepare()  # raises CycleError with the files


def test_a_file_is_read_in_one_sitting() -> None:
    """One idea a file, and none needs more than 300 lines."""
    files = [*(REPOSITORY / "src").rglob("*.py"), *(REPOSITORY / "benchmarks").rglob("*.py")]
    lengths = {file.relative_to(REPOSITORY).as_posix(): file.read_text(encoding="utf-8").count("\n") for file in files}
    assert {name for name, lines in lengths.items() if lines > 300} == set()


def test_modules_know_kernels_through_one_file() -> None:
    """And kernels know no module at all: the order of floors sees to that."""
    modules = (ROOT / "models" / "modules").glob("*.py")
    knowing = {file.stem for file in modules for _, name in imported(file) if name.startswith("slm.models.kernels")}
    assert knowing == {"fused"}


def test_few_modules_stand_at_the_root() -> None:
    """What every room stands on; all else has a room."""
    assert sum(file.parent == ROOT for file in FILES) <= 7


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
    at_the_edge = {"cli", "training/runner.py", "training/parts.py"}
    wrong = []
    for file in FILES:
        place = file.relative_to(ROOT)
        if place.parts[0] in at_the_edge or place.as_posix() in at_the_edge:
            continue
        wrong += [
            f"{place}:{line}" for line, module in imported(file) if module.split(".")[0] in ("hydra", "omegaconf")
        ]
    assert wrong == []


SEAMS = ROOT / "training/lightning_seams.py"


def test_private_parts_of_lightning_and_hydra_are_used_in_one_file_alone() -> None:
    """They change without a word. Those of Lightning stand in `SEAMS`, and its tests fail where they change."""
    theirs, ours = private_names_of_lightning(), defined_names()
    wrong = set()
    for file in FILES:
        if file == SEAMS:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = private_imports(tree)
        names |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and not is_self(node.value) and node.attr in theirs - ours
        }
        names |= {name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for name in inherited_private(node)}
        wrong |= {f"{file.relative_to(ROOT)}: {name}" for name in names}
    assert wrong == set()


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_imports(tree: ast.AST) -> set[str]:
    """Dotted names with a private part that are imported from Lightning or Hydra."""
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    dotted = {
        f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for node in imports
        for alias in node.names
    }
    return {
        name
        for name in dotted
        if name.partition(".")[0] in ("pytorch_lightning", "lightning_fabric", "hydra")
        and any(map(is_private, name.split(".")))
    }


def private_names_of_lightning() -> set[str]:
    """What Lightning calls its own attributes, functions and classes."""
    names = set()
    for package in ("pytorch_lightning", "lightning_fabric"):
        place = importlib.util.find_spec(package)
        assert place is not None
        for file in Path(str(place.origin)).parent.rglob("*.py"):
            names |= names_in(ast.parse(file.read_text(encoding="utf-8")))
    return {name for name in names if is_private(name)}


def defined_names() -> set[str]:
    return {name for file in FILES for name in names_in(ast.parse(file.read_text(encoding="utf-8")))}


def names_in(tree: ast.AST) -> set[str]:
    """Names that functions, classes, assignments and attributes of `self` have."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            names.add(node.attr)
    return names


def inherited_private(node: ast.ClassDef) -> set[str]:
    """Private attributes of `self` that a class of ours takes from the class of Lightning's that it extends."""
    names = {part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "") for part in node.bases}
    bases = [base for base in map(lightning_class, names) if base is not None]
    defined = {
        name
        for base in bases
        for kind in base.__mro__
        if kind.__module__.startswith(("pytorch_lightning", "lightning_fabric"))
        for name in names_in(ast.parse(textwrap.dedent(inspect.getsource(kind))))
    }
    used = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute) and is_self(part.value)}
    return {name for name in used & defined if is_private(name)}


def lightning_class(name: str) -> type | None:
    import pytorch_lightning as pl
    from pytorch_lightning.plugins import io

    found = [getattr(place, name, None) for place in (pl, pl.callbacks, pl.loggers, io)]
    return next((kind for kind in found if isinstance(kind, type)), None)


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
    "modules",
    [
        "slm.models.config, slm.data.config, slm.generation.config",
        "slm.training.run_config, slm.evaluation.config",
        "slm.study.run_table, slm.study.comparison_table, slm.study.comparison_plot",
    ],
)
def test_a_configuration_is_checked_without_torch(modules: str) -> None:
    """So that a typing error is answered in a blink, and `--help` in under a second; what looks at runs needs none."""
    assert not loaded_by(f"import {modules}") & HEAVY
