"""A text that ends before certain strings, wherever a token's border falls."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Holds back what might be the beginning of a stop string, and cuts the text before one.

    Args:
        stop: the strings; none of them empty.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop = list(stop)
        self.found = False
        self._held = ""

    def push(self, piece: str) -> str:
        """The text that is certain to come before any stop string."""
        if not self.stop or self.found:
            return "" if self.found else piece
        text = self._held + piece
        places = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        kept = max((_overlap(text, stop) for stop in self.stop), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))
