"""Source code: folders of programs, the languages by their files' endings; and a corpus that every machine has."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from slm.data.corpora.text import find_files, text
from slm.errors import UserError, did_you_mean
from slm.registry import register_corpus

LANGUAGES = {
    "c": ["*.c", "*.h"],
    "cpp": ["*.cpp", "*.cc", "*.cxx", "*.hpp", "*.hh", "*.hxx"],
    "csharp": ["*.cs"],
    "css": ["*.css", "*.scss"],
    "go": ["*.go"],
    "html": ["*.html", "*.htm"],
    "java": ["*.java"],
    "javascript": ["*.js", "*.jsx", "*.mjs"],
    "julia": ["*.jl"],
    "kotlin": ["*.kt"],
    "lua": ["*.lua"],
    "php": ["*.php"],
    "python": ["*.py", "*.pyi"],
    "r": ["*.r", "*.R"],
    "ruby": ["*.rb"],
    "rust": ["*.rs"],
    "shell": ["*.sh", "*.bash"],
    "sql": ["*.sql"],
    "swift": ["*.swift"],
    "typescript": ["*.ts", "*.tsx"],
}
# what tools put there: other people's code, or none that was written
_INSTALLED = {"site-packages", "dist-packages", "__pycache__"}
_LEFT_OUT = {*_INSTALLED, "node_modules", "vendor", "third_party"}
# of Python's own: tests are repetitive, the rest is not source
_LEFT_OUT_OF_PYTHON = {*_INSTALLED, "test", "tests", "idle_test", "lib-dynload"}


@register_corpus("code")
def code(path: str | list[str], languages: list[str] | None = None) -> list[Path]:
    """The source files that `path` names, hidden and installed ones left out.

    Args:
        path: as for `text`.
        languages: of `LANGUAGES`; None for all.

    Raises:
        UserError: there are none, or a language is not known.
    """
    for language in languages or ():
        if language not in LANGUAGES:
            known = ", ".join(LANGUAGES)
            raise UserError(
                f"data.languages: '{language}' is not known{did_you_mean(language, LANGUAGES)} (known: {known})"
            )
    patterns = [pattern for language in languages or LANGUAGES for pattern in LANGUAGES[language]]
    given = Path(path).expanduser().parts if isinstance(path, str) else ()
    return [file for file in text(path, patterns) if not _LEFT_OUT.intersection(file.parts[len(given) :])]


@register_corpus("python_stdlib")
def python_stdlib() -> list[Path]:
    """All ``.py`` files of this interpreter's standard library, tests left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = find_files(str(root), patterns=["*.py"])
    return [file for file in files if not _LEFT_OUT_OF_PYTHON.intersection(file.relative_to(root).parts)]
