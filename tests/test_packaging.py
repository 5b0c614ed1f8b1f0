"""The wheel is whole: what works from the repository works once installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMPOSE = """
import sys
from hydra import compose, initialize_config_module
import slm.cli.help, slm.conf
from slm.cli.composition import CONF, VERSION_BASE
assert slm.conf.__file__.startswith(sys.argv[1]), slm.conf.__file__
with initialize_config_module(CONF, **VERSION_BASE):
    config = compose("train", ["model=gpt2_medium", "experiment=shakespeare_char_cpu"])
assert config.model.modules.transformer.n_layers == 4
assert "gpt2_xl" in slm.cli.help.choices("model")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy of the sources, since building writes beside them; with what is installed, no network."""
    backend = pytest.importorskip("setuptools", reason="a wheel is built with the setuptools that is installed")
    if int(backend.__version__.partition(".")[0]) < 77:
        pytest.skip(f"the project needs setuptools >= 77 to build, here is {backend.__version__}")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "conf/new_group").mkdir()
    (folder / "conf/new_group/choice.yaml").write_text("a: 1\n")
    build = "import setuptools.build_meta as backend; print(backend.build_wheel('dist'))"
    answer = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return next((folder / "dist").glob("*.whl"))


def test_it_holds_every_module_and_every_yaml_and_the_kernels(wheel: Path) -> None:
    """Also of a configuration group that did not exist when setup.py was written."""
    packed = set(zipfile.ZipFile(wheel).namelist())
    endings = ("py", "c", "h", "txt", "jinja", "md", "css", "js", "html", "svg")
    sources = [file for ending in endings for file in (ROOT / "src/slm").rglob(f"*.{ending}")]
    modules = {f"slm/{file.relative_to(ROOT / 'src/slm')}" for file in sources}
    yamls = {f"slm/conf/{file.relative_to(ROOT / 'conf')}" for file in (ROOT / "conf").rglob("*.yaml")}
    assert len(yamls) > 30
    assert modules | yamls | {"slm/conf/__init__.py", "slm/conf/new_group/choice.yaml"} <= packed
    assert not any(name.startswith(("conf/", "tests/", "src/")) for name in packed)


def test_hydra_composes_from_it(wheel: Path, tmp_path: Path) -> None:
    """Unpacked anywhere, ahead of the installed one; and the commands are declared."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    answer = subprocess.run(
        [sys.executable, "-c", COMPOSE, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    (declared,) = tmp_path.glob("slm-*.dist-info/entry_points.txt")
    commands = {line.partition(" ")[0] for line in declared.read_text().splitlines() if "=" in line}
    known = ("train", "generate", "prepare", "evaluate", "convert", "crawl", "reproduce", "plan", "runs", "compare",
             "report", "serve", "push")  # fmt: skip
    assert {f"slm-{name}" for name in known} <= commands
