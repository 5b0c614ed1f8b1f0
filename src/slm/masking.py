"""Keys and passwords in what is written down about a run: masked, by the name of a setting or by their own look."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "***"

_SECRET_NAME = re.compile(
    r"(^|_)(api_?key|access_?key|private_?key|password|passwd|secret|credentials?|authorization)$"
    r"|^token$|(^|_)(hf|hub|auth|access|api|bearer|refresh|wandb|github|huggingface)_?token$",
    re.IGNORECASE,
)  # of a setting; ``eos_token`` and ``max_new_tokens`` are none
_SECRET = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bwandb_v\d_[A-Za-z0-9_]{16,}|\bsk-[A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{16,}"
    r"|\bgithub_pat_[A-Za-z0-9_]{16,}|\bAKIA[0-9A-Z]{16}\b|\bxox[abpr]-[A-Za-z0-9-]{10,}"
)  # of the Hugging Face hub, W&B, OpenAI, GitHub, AWS, Slack
_IN_ADDRESS = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]+(?=@)")
_IN_TEXT = re.compile(r"([\w.]+)(\s*[:=]\s*)([^,}\]\s]+)")
_SHORTEST = 8  # characters of a variable's value that is looked for: a shorter one may be any word


def masked(value: Any, name: str = "") -> Any:
    """Plain types with what is secret in them masked; `name` is that of the setting whose value it is."""
    if isinstance(value, Mapping):
        return {key: masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [masked(inner, name) for inner in value]
    if value is not None and not isinstance(value, bool) and _SECRET_NAME.search(name):
        return MASK
    return _masked_text(value) if isinstance(value, str) else value


def masked_argument(argument: str) -> str:
    """A word of a command line, ``key=value`` or any other."""
    key, equals, value = argument.partition("=")
    name = re.split(r"[./@+]", key)[-1]
    if equals and value not in ("", "null", "~") and _SECRET_NAME.search(name):
        return f"{key}={MASK}"
    inside = _IN_TEXT.sub(_masked_pair, value) if value.startswith(("{", "[")) else value
    return _masked_text(f"{key}{equals}{inside}")


def _masked_pair(found: re.Match[str]) -> str:
    """``name: value`` inside a mapping that is typed."""
    return f"{found[1]}{found[2]}{MASK}" if _SECRET_NAME.search(found[1].rpartition(".")[2]) else found[0]


def _masked_text(text: str) -> str:
    text = _IN_ADDRESS.sub(rf"\1:{MASK}", _SECRET.sub(MASK, text))
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and value in text and _SECRET_NAME.search(name):
            text = text.replace(value, MASK)
    return text
