"""What stands for the tokenizer of a model that came without one."""

from __future__ import annotations

from typing import Any, cast

from slm.errors import UserError
from slm.tokenizers.base import Tokenizer


class _Missing:
    """Refuses whatever is asked of it: the model itself needs no tokenizer."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UserError(
            f"'{self._place}' holds a model without a tokenizer, so it reads ids and no text (lm.model takes them); "
            "put the tokenizer's files there (tokenizer.json), or train with one of your own (tokenizer=…)"
        )


def missing_tokenizer(place: str) -> Tokenizer:
    """Of the model in the folder `place`."""
    return cast(Tokenizer, _Missing(place))


def is_missing(tokenizer: Tokenizer) -> bool:
    """Whether the model came without one."""
    return isinstance(tokenizer, _Missing)
