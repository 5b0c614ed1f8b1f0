"""From a kind's name and its settings to a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from slm.errors import UserError, refuse
from slm.registry import TOKENIZERS
from slm.schema import call_problems

if TYPE_CHECKING:
    from slm.tokenizers.base import Tokenizer


def build_tokenizer(node: Mapping[str, Any], texts: Iterable[str]) -> Tokenizer:
    """That of a ``kind`` and its settings, fitted on `texts` if it fits anything; `UserError` for a wrong one."""
    refuse(tokenizer_problems(node))
    return TOKENIZERS.get(node["kind"]).create(texts, **settings_of(node))


def settings_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Without the ``kind``."""
    return {key: value for key, value in node.items() if key != "kind"}


def tokenizer_problems(node: Mapping[str, Any]) -> list[str]:
    """What is wrong with a tokenizer's configuration, ``kind`` and its settings, a line each."""
    try:
        kind = TOKENIZERS.get(str(node.get("kind")))
    except UserError as error:
        return [f"tokenizer.kind: {error}"]
    return call_problems(kind.create, settings_of(node), "tokenizer", given=1)
