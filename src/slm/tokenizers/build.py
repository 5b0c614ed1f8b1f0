"""From a kind's name and its settings to a tokenizer."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from slm.errors import UserError
from slm.registry import TOKENIZERS
from slm.schema import unknown_key
from slm.tokenizers.base import Tokenizer


def build_tokenizer(kind: str, settings: Mapping[str, Any], texts: Iterable[str]) -> Tokenizer:
    """The tokenizer of that `kind`, made with `settings` and fitted on `texts` where it fits anything.

    Raises:
        UserError: no such kind, a setting it does not have, or one it refuses.
    """
    cls = TOKENIZERS.get(kind)
    _check_names(settings, inspect.signature(cls.create))
    tokenizer: Tokenizer = cls.create(texts, **settings)
    return tokenizer


def _check_names(settings: Mapping[str, Any], signature: inspect.Signature) -> None:
    _, *parameters = signature.parameters.values()  # the first is `texts`
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters]
    for name in settings:
        if name not in known:
            raise UserError(unknown_key(f"tokenizer.{name}", known))
