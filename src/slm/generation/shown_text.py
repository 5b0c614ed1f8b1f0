"""What of a text may be shown while it is written: not the white space ahead of an answer, nothing of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from slm.tokenizers.base import StreamDecoder


class WithoutLead(StreamDecoder):
    """Another decoder's text without the `lead` it may begin with: a chat template's white space ahead of an answer."""

    def __init__(self, decoder: StreamDecoder, lead: str) -> None:
        self._decoder = decoder
        self._lead = lead
        self._held = ""

    def push(self, token_id: int) -> str:
        return self._past_lead(self._decoder.push(token_id))

    def flush(self) -> str:
        text = self._past_lead(self._decoder.flush())
        held, self._held = self._held, ""  # a text that is shorter than the lead stays
        return text + held

    def _past_lead(self, piece: str) -> str:
        if not self._lead:
            return piece
        self._held += piece
        if len(self._held) < len(self._lead) and self._lead.startswith(self._held):
            return ""
        text, self._held, self._lead = self._held.removeprefix(self._lead), "", ""
        return text


class StopStrings:
    """Cuts a text before a string of `stop`, and holds back what might begin one, wherever a token's border falls."""

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
        kept = max(_overlap(text, stop) for stop in self.stop)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    # the length of the longest end of `text` that `stop` begins with
    return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))
