"""What the files beside a Hugging Face vocabulary say of it: its tokens' parts, its chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from slm.errors import UserError

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
MODEL_FILE = "config.json"
TEMPLATE_FILE = "chat_template.jinja"


def named_tokens(folder: Path, backend: tokenizers.Tokenizer) -> dict[str, str]:
    """``eos_token``, ``pad_token``, … to tokens of the vocabulary; a name without a token there is left out.

    Where no tokenizer file speaks of a beginning of text (GPT-2's do not), the model's ``config.json`` may.

    Raises:
        UserError: a file is not JSON.
    """
    entries = {**_read(folder / SPECIAL_FILE), **_read(folder / CONFIG_FILE)}
    if "bos_token" not in entries and isinstance(bos_id := _read(folder / MODEL_FILE).get("bos_token_id"), int):
        entries["bos_token"] = backend.id_to_token(bos_id)
    named = {name: _content(entries.get(name)) for name in NAMES}
    return {
        name: token
        for name, token in named.items()
        if isinstance(token, str) and backend.token_to_id(token) is not None
    }


def chat_template(folder: Path) -> str | None:
    """The Jinja template for conversations: the file of that name, else the configuration's (its default one)."""
    file = folder / TEMPLATE_FILE
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = _read(folder / CONFIG_FILE).get("chat_template")
    if isinstance(template, list):  # several, each with a name
        template = next((entry.get("template") for entry in template if entry.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _content(entry: Any) -> Any:
    return entry.get("content") if isinstance(entry, Mapping) else entry


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}); correct it or take it away") from error
    return content
