"""Whether a string is text: JSON can spell half a pair of surrogates, which is no character and has no UTF-8."""

from __future__ import annotations

import re

_HALF = re.compile("[\ud800-\udfff]")


def is_unicode(text: str) -> bool:
    """It holds whole characters alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_replacements(text: str) -> str:
    """The same with U+FFFD for each half."""
    return _HALF.sub("\ufffd", text)
