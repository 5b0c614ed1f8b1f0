"""The Python standard library's own source files: a corpus every machine already has."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from slm.data.corpora.text import find_files
from slm.registry import register_corpus

# Tests are repetitive, the rest is not the library's own or not source.
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib-dynload"}


@register_corpus("python_stdlib")
def python_stdlib() -> list[Path]:
    """All ``.py`` files of this interpreter's standard library, tests left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = find_files(str(root), patterns=["*.py"])
    return [file for file in files if not _LEFT_OUT.intersection(file.relative_to(root).parts)]
