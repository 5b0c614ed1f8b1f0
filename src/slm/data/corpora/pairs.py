"""Records of preferences: a better and a worse answer to a prompt."""

from __future__ import annotations

from pathlib import Path

from slm.data.corpora.text import text
from slm.registry import register_corpus

PATTERNS = ["*.jsonl", "*.ndjson", "*.json", "*.parquet"]


@register_corpus("pairs")
def pairs(path: str | list[str], val_path: str | list[str] | None = None) -> list[Path]:
    """The files of training; `val_path` names those of validation, which stand apart."""
    return text(path, PATTERNS)
