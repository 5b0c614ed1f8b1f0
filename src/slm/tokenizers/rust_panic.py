"""A panic of the Rust library in our words: to Python it is no `Exception`, and would end in a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from slm.errors import UserError


@contextmanager
def panics_refused() -> Iterator[None]:
    """Raise `UserError` in place of pyo3's ``PanicException``, of which each library has a class of its own."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the tokenizer's file is damaged: the library tokenizers broke down on it ({reason})"
        ) from None
