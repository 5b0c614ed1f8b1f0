"""Files of records to tune on: conversations (`task=sft`), and better and worse answers to a prompt (`task=dpo`)."""

from __future__ import annotations

from pathlib import Path

from slm.chat.records import Form
from slm.data.corpora.text import text
from slm.registry import register_corpus

_CONVERSATIONS = ["*.json", "*.jsonl"]
_PAIRS = ["*.jsonl", "*.ndjson", "*.json", "*.parquet"]


@register_corpus("instructions")
def instructions(path: str | list[str], val_path: str | list[str] | None = None, form: Form = "auto") -> list[Path]:
    """The files of both parts, training first."""
    return [*record_files(path), *(record_files(val_path) if val_path else [])]


def record_files(path: str | list[str]) -> list[Path]:
    """The files of conversations that `path` (a file, a folder, a glob, or several) names, sorted."""
    return text(path, _CONVERSATIONS)


@register_corpus("pairs")
def pairs(path: str | list[str], val_path: str | list[str] | None = None) -> list[Path]:
    """The files of training; `val_path` names those of validation, which stand apart."""
    return text(path, _PAIRS)
