"""Texts to ids as other tools have them: what spells a special token is that token, and what stands ahead of a text."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from slm.errors import UserError
from slm.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class SpelledTexts:
    """Ids as a vocabulary's exported form gives them to whoever calls it plainly."""

    tokenizer: Tokenizer

    def ids(self, text: str, begins: bool = False) -> list[int]:
        """Those of `text`; where it `begins`, after what the vocabulary puts ahead of every text, unless it spells that
        itself."""
        parts = self._pattern.split(text) if self._pattern is not None else [text]
        found = self.tokenizer.encode(text) if len(parts) == 1 else self.tokenizer.encode_parts(parts).ids
        spelled = found[:1] == [self.begin_id]
        return [*self.tokenizer.begin_ids, *found] if begins and not spelled else list(found)

    @functools.cached_property
    def begin_id(self) -> int:
        """What a text that stands alone is read after: the begin of text that the vocabulary's files name, else the end
        of text, as lm-eval has it."""
        if self.tokenizer.begin_ids:
            return self.tokenizer.begin_ids[0]
        return self._named("bos_token", self._named("eos_token", self.tokenizer.eos_id))

    @functools.cached_property
    def begin(self) -> str:
        """How `begin_id` is spelled."""
        specials = {} if self._pattern is None else self.tokenizer.special_tokens
        return next((text for text, token_id in specials.items() if token_id == self.begin_id), "<end of text>")

    def _named(self, name: str, otherwise: int) -> int:
        spelling = self.tokenizer.special_names.get(name)
        if spelling is None or self._pattern is None:
            return otherwise
        return self.tokenizer.special_tokens.get(spelling, otherwise)

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        try:
            return self.tokenizer.special_pattern
        except UserError:  # a kind that has no such form, and so no such spelling
            return None
