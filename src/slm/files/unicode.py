"""Whether a string is text: JSON can spell half a pair of surrogates, which is no character and has no UTF-8."""

from __future__ import annotations

import re

_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def is_unicode(text: str) -> bool:
    """It holds whole characters alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_replacements(text: str) -> str:
    """The same with U+FFFD for each half, and for each NUL."""
    return _NO_TEXT.sub("\ufffd", text)
