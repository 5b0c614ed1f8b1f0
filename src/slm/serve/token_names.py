"""What tokens are called where they are told one by one."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from slm.errors import UserError
from slm.tokenizers.base import Tokenizer


class TokenNames:
    """Of one vocabulary."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @functools.cached_property
    def specials(self) -> dict[int, str]:
        """Spellings of special tokens."""
        try:
            return {token_id: spelling for spelling, token_id in self._tokenizer.special_tokens.items()}
        except UserError:  # a kind whose special tokens have no spelling
            return {}

    def bytes_of(self, token_id: int) -> bytes:
        """UTF-8, perhaps a part of a character; of a special token its spelling."""
        if token_id in self.specials or token_id >= self._tokenizer.vocab_size:
            return self.specials.get(token_id, f"<{token_id}>").encode()
        return self._tokenizer.bytes_of(token_id) or f"<{token_id}>".encode()

    def name(self, token_id: int) -> str:
        r"""Its text; of a part of a character ``bytes:\xe2\x82``, as OpenAI's API has it."""
        spelt = self.bytes_of(token_id)
        try:
            return spelt.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelt)

    def offsets(self, ids: Sequence[int], behind: Sequence[int], start: int) -> list[int]:
        """Where in a text each of `ids` begins that come `behind` others, whose text ends at `start`."""
        decoder, places = self._tokenizer.decoder_after(behind), []
        for token_id in ids:
            places.append(start)
            start += len(decoder.push(token_id)) if token_id < self._tokenizer.vocab_size else 0
        return places
