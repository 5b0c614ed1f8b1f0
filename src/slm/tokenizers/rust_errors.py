"""What the Rust library tokenizers breaks down with, in our words: to Python a panic is no `Exception`."""

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
        raise _damaged(error) from None


@contextmanager
def breakdowns_refused() -> Iterator[None]:
    """The same in place of the bare `Exception` too that is raised of a text which a damaged file has no tokens for."""
    with panics_refused():
        try:
            yield
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise _damaged(error) from None


def _damaged(error: BaseException) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"the tokenizer's file is damaged: the library tokenizers broke down on it ({reason})")
