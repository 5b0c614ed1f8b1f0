"""A text to continue, with what of the settings is its own."""

from __future__ import annotations

from dataclasses import dataclass

from slm.schema import Count, NonNegativeInt


@dataclass(frozen=True)
class Prompt:
    """What to continue.

    Attributes:
        text: may be empty.
        max_new_tokens: the most tokens to add; None for that of the settings.
        seed: of the sampling, sample j of it having ``seed + j``; None for that of the settings.
        line: where it stands in a file of prompts; None for one of no file.
    """

    text: str
    max_new_tokens: Count | None = None
    seed: NonNegativeInt | None = None
    line: Count | None = None

    @classmethod
    def of(cls, prompt: str | Prompt) -> Prompt:
        """A plain text is a prompt with nothing of its own."""
        return cls(prompt) if isinstance(prompt, str) else prompt
