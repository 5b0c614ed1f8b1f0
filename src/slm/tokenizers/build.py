"""From a kind's name and its settings to a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from slm.errors import UserError
from slm.registry import TOKENIZERS
from slm.schema import call_problems

if TYPE_CHECKING:
    from slm.tokenizers.base import Tokenizer


def build_tokenizer(kind: str, settings: Mapping[str, Any], texts: Iterable[str]) -> Tokenizer:
    """The tokenizer of that `kind`, fitted on `texts` if it fits anything; `UserError` for a wrong kind or setting."""
    if problems := tokenizer_problems({"kind": kind, **settings}):
        raise UserError("\n".join(problems))
    return TOKENIZERS.get(kind).create(texts, **settings)


def tokenizer_problems(node: Mapping[str, Any]) -> list[str]:
    """What is wrong with a tokenizer's configuration, ``kind`` and its settings, a line each."""
    try:
        kind = TOKENIZERS.get(str(node.get("kind")))
    except UserError as error:
        return [f"tokenizer.kind: {error}"]
    settings = {key: value for key, value in node.items() if key != "kind"}
    return call_problems(kind.create, settings, "tokenizer", given=1)
