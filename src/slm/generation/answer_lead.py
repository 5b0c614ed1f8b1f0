"""Answers without the white space that a chat template, or a vocabulary, has ahead of them."""

from __future__ import annotations

from slm.tokenizers.base import StreamDecoder


class WithoutLead(StreamDecoder):
    """The text of another decoder, but for `lead` where it begins with that."""

    def __init__(self, decoder: StreamDecoder, lead: str) -> None:
        self._decoder = decoder
        self._lead = lead
        self._held = ""

    def push(self, token_id: int) -> str:
        """What is certain not to be of the lead."""
        return self._past_lead(self._decoder.push(token_id))

    def flush(self) -> str:
        """What was held back: a text that is shorter than the lead stays."""
        text = self._past_lead(self._decoder.flush())
        held, self._held = self._held, ""
        return text + held

    def _past_lead(self, piece: str) -> str:
        if not self._lead:
            return piece
        self._held += piece
        if len(self._held) < len(self._lead) and self._lead.startswith(self._held):
            return ""
        text, self._held, self._lead = self._held.removeprefix(self._lead), "", ""
        return text
