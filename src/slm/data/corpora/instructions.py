"""Conversations to be tuned on, in JSON or JSON Lines; `task=sft` reads them."""

from __future__ import annotations

from pathlib import Path

from slm.chat.records import Form
from slm.data.corpora.text import find_files
from slm.registry import register_corpus

PATTERNS = ["*.json", "*.jsonl"]


@register_corpus("instructions")
def instructions(path: str | list[str], val_path: str | list[str] | None = None, form: Form = "auto") -> list[Path]:
    """The files of both parts, training first; see `record_files`."""
    return [*record_files(path), *(record_files(val_path) if val_path else [])]


def record_files(path: str | list[str]) -> list[Path]:
    """The files that `path` (a file, a folder, a glob, or several) names, sorted; see `find_files`."""
    paths = [path] if isinstance(path, str) else path
    return sorted({file for one in paths for file in find_files(one, PATTERNS)})
