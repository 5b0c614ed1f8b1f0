"""What the Rust library tokenizers breaks down with, in our words: to Python a panic is no `Exception`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from slm.errors import UserError


@contextmanager
def breakdowns_refused(
    what: str = "the tokenizer's file is damaged",
    mend: str = "fetch or make it again",
    also: type[Exception] | None = None,
) -> Iterator[None]:
    """Raise `UserError` in place of pyo3's ``PanicException``, of which each library has a class of its own, and of the
    bare `Exception` that is raised of what a damaged file has no tokens for.

    Args:
        what, mend: its words; the library's stand between them.
        also: other errors that mean the same.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        is_theirs = type(error) is Exception or type(error).__name__ == "PanicException"
        if not (is_theirs or (also is not None and isinstance(error, also))):
            raise
        reason = " ".join((str(error) if is_theirs else repr(error)).split())[:200]
        raise UserError(f"{what} ({reason}); {mend}") from error
