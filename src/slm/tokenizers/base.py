"""What every tokenizer does: text to ids and back, and itself to JSON and back."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from slm.errors import UserError
from slm.tokenizers.text_bytes import PlacedIds, stretched

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_FILE = "slm_tokenizer.json"
DESCRIPTIONS = ("special_names", "chat_template", "also_ends", "published_ids")
"""Entries of a state that no id of any text depends on."""
ADDED_TOKENS = "added_tokens"
"""Entry of a saved tokenizer: special tokens that were put at the end of its vocabulary (`ExtendedTokenizer`)."""
_MOST_IDS = 1 << 22
"""No vocabulary has four million; tables as long as the largest id are made of it."""


def ids_up_to(largest: int) -> int:
    """The size of a vocabulary whose largest id is `largest`, or `UserError`."""
    if not 0 <= largest < _MOST_IDS:
        raise UserError(
            f"the vocabulary has the token id {largest:,}; allowed are 0 to {_MOST_IDS - 1:,}: it is damaged"
        )
    return largest + 1


def special_tokens_of(backend: tokenizers.Tokenizer) -> dict[str, int]:
    """Spellings of the special ones among its added tokens, with their ids."""
    return {token.content: i for i, token in backend.get_added_tokens_decoder().items() if token.special}


class StreamDecoder(ABC):
    """Turns ids that arrive one by one into text, never giving out half a character.

    The pieces given out by `push` and the last `flush`, joined, equal `decode` of all ids.
    """

    @abstractmethod
    def push(self, token_id: int) -> str:
        """The text that became certain with this id (often the empty string)."""

    @abstractmethod
    def flush(self) -> str:
        """What is still held back; an incomplete character comes out as U+FFFD."""


class Tokenizer(ABC):
    """A frozen vocabulary with an exact way from text to ids and back.

    Special tokens never come out of `encode`: text that spells one is encoded as ordinary text.

    Attributes:
        kind: the registry key.
        vocab_size: number of ids, special ones included; ids are ``0 .. vocab_size - 1``.
        eos_id: end of text; separates documents and ends generation.
        pad_id: a filler that is never learnt, other than `eos_id`; None where the vocabulary
            (GPT-2's, say) has none. Padded positions carry the label -100 in any case.
        begin_ids: ids that stand before every text in what models of this vocabulary were trained on
            (Llama's ``<s>``, say); `encode` does not add them.
        also_ends: ids other than `eos_id` at which a model of this vocabulary has said all (the end of a turn, say).
        published_ids: ``bos_token_id`` and the like, by the file in which the model's publisher said them.
        special_names: ``bos_token``, ``unk_token``, …: what Hugging Face calls tokens, each with its spelling in the
            vocabulary; the end of text and the padding need not be among them.
        chat_template: the Jinja template by which a conversation is written as text, where one came with
            the vocabulary.
    """

    kind: ClassVar[str]
    vocab_size: int
    eos_id: int
    pad_id: int | None
    begin_ids: tuple[int, ...] = ()
    also_ends: tuple[int, ...] = ()
    published_ids: Mapping[str, Mapping[str, Any]] = {}
    special_names: Mapping[str, str] = {}
    chat_template: str | None = None

    @classmethod
    def create(cls, texts: Iterable[str], *args: Any, **settings: Any) -> Tokenizer:
        """Make one, fitting the vocabulary on `texts` where the kind has one to fit.

        A kind names its settings, keyword-only, in place of `args` and `settings` (both are here so that type checkers
        allow that). `texts` is iterated at most once, and not at all by kinds whose vocabulary is given.

        Raises:
            UserError: `texts` holds nothing to fit on.
        """
        raise NotImplementedError

    @classmethod
    def source_files(cls, **settings: Any) -> list[Path]:
        """The local files that `create` would read with these settings; another content is another tokenizer."""
        return []

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a text that a model writes."""
        return frozenset((self.eos_id, *self.also_ends))

    def with_end_of_text(self, token: str) -> Tokenizer:
        """The same vocabulary, with `token` as what ends a text; what ended one before ends a turn.

        Raises:
            UserError: it has no such token, or this kind has one end of text alone.
        """
        raise UserError(f"eos_token: tokenizer={self.kind} has one end of text alone; leave it out")

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of `text`; no end-of-text is added."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text; equal to `encode` of each, faster where the kind can."""
        return [self.encode(text) for text in texts]

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text as (n,) integers: for texts of millions of tokens, which as Python's numbers take long."""
        return [np.array(ids, dtype=np.int64) for ids in self.encode_batch(texts)]

    @functools.cached_property
    def bytes_of_id(self) -> np.ndarray:
        """(vocab_size,) int64: bytes of UTF-8 that each id stands for as a rule, special ones 0."""
        return np.array([len(self.decode([i]).encode()) for i in range(self.vocab_size)])

    def spells_exactly(self) -> bool:
        """Whether the bytes of each token of any text are `bytes_of_id`."""
        return False

    def text_bytes(self, text: str, ids: np.ndarray) -> np.ndarray:
        """How many bytes of `text` each of `ids` (n,), which it is encoded as, stands for: (n,) int64, together all.

        Where a kind knows no better, those of the ids, in proportion.
        """
        return stretched(self.bytes_of_id[ids], len(text.encode()))

    def encode_parts(self, parts: Sequence[str]) -> PlacedIds:
        """Ids of a text that a chat template wrote, each with its place in ``"".join(parts)``.

        They are those that the vocabulary gives the whole text, so that no border but a special token's cuts it.

        Args:
            parts: in turn text, in which what spells a special token is text, and the spelling of a special token that
                is meant; the first and the last are texts, perhaps empty ones.

        Raises:
            UserError: as `to_huggingface`; or the kind gives another text back than it encoded.
        """
        placed, done = PlacedIds(), 0
        for number, part in enumerate(parts):
            ids = [self.special_tokens[part]] if number % 2 else self.encode(part)
            ends = [len(part)] if number % 2 else self._ends(part, ids)
            # an id that ends no character stands for the one that the next ids go on with
            starts = [min(end, len(part) - 1) for end in [0, *ends][: len(ids)]]
            ends = [max(start + 1, end) for start, end in zip(starts, ends, strict=True)]
            placed.add(ids, [done + start for start in starts], [done + end for end in ends])
            done += len(part)
        return placed

    def _ends(self, text: str, ids: Sequence[int]) -> list[int]:
        """How many characters of `text` are written with each of its `ids`."""
        decoder = self.stream_decoder()
        ends = list(itertools.accumulate(len(decoder.push(token_id)) for token_id in ids))
        if ends and ends[-1] != len(text):
            raise UserError(
                f"tokenizer={self.kind} does not give back the text that it encoded, so that the responses of a "
                f"conversation cannot be found; let {type(self).__name__} have a method encode_parts of its own"
            )
        return ends

    @functools.cached_property
    def special_tokens(self) -> Mapping[str, int]:
        """Spellings of the special tokens, with their ids.

        Raises:
            UserError: as `to_huggingface`.
        """
        return special_tokens_of(self.to_huggingface())

    @functools.cached_property
    def special_pattern(self) -> re.Pattern[str]:
        """What finds them in a text; splitting by it keeps them. Of two that begin alike the longer is found."""
        spellings = sorted(self.special_tokens, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, spellings)) or '(?!)'})")

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; special ids contribute nothing, broken UTF-8 becomes U+FFFD.

        Raises:
            ValueError: an id is outside ``0 .. vocab_size - 1``.
        """

    @abstractmethod
    def stream_decoder(self) -> StreamDecoder:
        """A fresh incremental decoder."""

    def decoder_after(self, ids: Sequence[int]) -> StreamDecoder:
        """A fresh incremental decoder of what goes on after these `ids`: its text is that of all without theirs.

        Special ones among them stand in a text that a chat template wrote.
        """
        return self.stream_decoder()

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything needed to make this tokenizer again, as JSON types."""

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Tokenizer:
        """The inverse of `state`."""
        raise NotImplementedError

    def to_huggingface(self) -> tokenizers.Tokenizer:
        """The same vocabulary as a tokenizer of the Rust library, made afresh.

        Without special tokens added it gives the ids of `encode`, and skipping special tokens the text of
        `decode`. One difference is meant: text that spells a special token is that token there
        (unless its ``encode_special_tokens`` is set to True).

        Raises:
            UserError: this kind, or a setting of this one, cannot be said exactly in the library's terms.
        """
        raise UserError(
            f"tokenizer={self.kind} cannot be exported to Hugging Face's form: "
            f"{type(self).__name__} has no method to_huggingface"
        )

    def save(self, folder: Path) -> None:
        """Write ``slm_tokenizer.json`` into an existing `folder`."""
        (folder / TOKENIZER_FILE).write_text(self._json(self.state()), encoding="utf-8")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the saved form: equal fingerprints encode every text alike.

        What only describes the tokenizer to others (the names of special tokens, the chat template) is left out.
        """
        state = {key: value for key, value in self.state().items() if key not in DESCRIPTIONS}
        return hashlib.sha256(self._json(state).encode()).hexdigest()

    def _json(self, state: dict[str, Any]) -> str:
        return json.dumps({"kind": self.kind, **state}, ensure_ascii=False, sort_keys=True)

    def check_ids(self, ids: Iterable[int]) -> list[int]:
        """`ids` as a list of ints, or `ValueError` naming the first that is out of range."""
        checked = [int(i) for i in ids]
        for i in checked:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"token id {i} is outside this vocabulary (0 .. {self.vocab_size - 1})")
        return checked
