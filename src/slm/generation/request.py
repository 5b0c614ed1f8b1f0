"""A text to continue, with what of the settings is its own."""

from __future__ import annotations

from dataclasses import dataclass

from slm.schema import Count, NonNegativeInt


@dataclass(frozen=True)
class Prompt:
    """What to continue; of what is None the settings decide.

    Attributes:
        text: may be empty.
        max_new_tokens: the most tokens to add.
        seed: of the sampling, sample j of it having ``seed + j``.
        line: where it stands in a file of prompts.
    """

    text: str
    max_new_tokens: Count | None = None
    seed: NonNegativeInt | None = None
    line: Count | None = None

    @classmethod
    def of(cls, prompt: str | Prompt) -> Prompt:
        """A plain text is a prompt with nothing of its own."""
        return cls(prompt) if isinstance(prompt, str) else prompt
