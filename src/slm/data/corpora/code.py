"""Source code: folders of programs, the languages by their files' endings."""

from __future__ import annotations

from pathlib import Path

from slm.data.corpora.text import text
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
_LEFT_OUT = {"node_modules", "site-packages", "dist-packages", "__pycache__", "vendor", "third_party"}


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
