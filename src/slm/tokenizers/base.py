"""What every tokenizer does: text to ids and back, and itself to JSON and back."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from slm.errors import UserError
from slm.files.writing import new_file
from slm.tokenizers.text_bytes import PlacedIds, stretched

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_FILE = "slm_tokenizer.json"
# no id of any text depends on these
DESCRIPTIONS = ("special_names", "chat_template", "template_args", "also_ends", "published_ids")
ADDED_TOKENS = "added_tokens"  # of a state: special tokens that were put at the end of it (`ExtendedTokenizer`)
_MOST_IDS = 1 << 22  # no vocabulary has four million; tables as long as the largest id are made of it


def ids_up_to(largest: int) -> int:
    """The size of a vocabulary whose largest id is `largest`, or `UserError`."""
    if not 0 <= largest < _MOST_IDS:
        raise UserError(f"the vocabulary has token id {largest:,}; allowed are 0 to {_MOST_IDS - 1:,}: it is damaged")
    return largest + 1


@contextmanager
def breakdowns_refused(
    what: str = "the tokenizer's file is damaged",
    mend: str = "fetch or make it again",
    also: type[Exception] | None = None,
) -> Iterator[None]:
    """Raise `UserError` in place of the Rust library's panics (to Python no `Exception`), bare `Exception`, `also`."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        is_theirs = type(error) is Exception or type(error).__name__ == "PanicException"
        if not (is_theirs or (also is not None and isinstance(error, also))):
            raise
        reason = " ".join((str(error) if is_theirs else repr(error)).split())[:200]
        raise UserError(f"{what} ({reason}); {mend}") from error


def special_tokens_of(backend: tokenizers.Tokenizer) -> dict[str, int]:
    """Spellings of the special ones among its added tokens, with their ids."""
    return {token.content: i for i, token in backend.get_added_tokens_decoder().items() if token.special}


class StreamDecoder(ABC):
    """Turns ids that arrive one by one into text; what `push` and `flush` give out, joined, is `decode` of all ids."""

    @abstractmethod
    def push(self, token_id: int) -> str:
        """The text that became certain with this id (often the empty string)."""

    @abstractmethod
    def flush(self) -> str:
        """What is still held back; an incomplete character comes out as U+FFFD."""


class Tokenizer(ABC):
    """A frozen vocabulary with an exact way from text to ids ``0 .. vocab_size - 1`` and back."""

    kind: ClassVar[str]  # the registry key
    vocab_size: int  # special ids included
    eos_id: int  # separates documents and ends generation
    pad_id: int | None  # a filler that is never learnt, other than `eos_id`; GPT-2's vocabulary, say, has none
    begin_ids: tuple[int, ...] = ()  # before every text that models learnt from (Llama's ``<s>``); `encode` adds none
    also_ends: tuple[int, ...] = ()  # ids beside `eos_id` at which a model has said all (the end of a turn, say)
    published_ids: Mapping[str, Mapping[str, Any]] = {}  # ``bos_token_id`` and the like, by the publisher's file
    special_names: Mapping[str, str] = {}  # ``bos_token``, …: Hugging Face's names of spellings in the vocabulary
    chat_template: str | None = None  # Jinja's, by which a conversation is written as text
    template_args: Mapping[str, Any] = {}  # what it was given in training, plain types (``enable_thinking``, say)

    @classmethod
    def create(cls, texts: Iterable[str], *args: Any, **settings: Any) -> Tokenizer:
        """Make one, fitted on `texts`, read once at most, if the kind has something to fit; `UserError` without any. A
        kind names its settings, keyword-only, in place of `args` and `settings`, which let type checkers allow that."""
        raise NotImplementedError

    @classmethod
    def source_files(cls, **settings: Any) -> list[Path]:
        """The local files that `create` would read; another content is another tokenizer."""
        return []

    @property
    def end_ids(self) -> frozenset[int]:
        return frozenset((self.eos_id, *self.also_ends))

    def with_end_of_text(self, token: str) -> Tokenizer:
        """The same vocabulary, with `token` as what ends a text; what ended one before ends a turn."""
        raise UserError(f"eos_token: tokenizer={self.kind} has one end of text alone; leave it out")

    @property
    def cuts(self) -> tuple[str, ...] | None:
        """Of byte-level BPE: the patterns (`pre_tokenizer.SPLITS`) by which a text is cut ahead of merging, each of
        what those before it left whole; None of other kinds, and where a text is cut otherwise."""
        return None

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
    def spellings(self) -> Sequence[bytes]:
        """`bytes_of` each id."""
        return [self.bytes_of(i) for i in range(self.vocab_size)]

    @functools.cached_property
    def bytes_of_id(self) -> np.ndarray:
        """(vocab_size,) int64: how many bytes of UTF-8 each id stands for as a rule, special ones 0."""
        return np.array(list(map(len, self.spellings)))

    def bytes_of(self, token_id: int) -> bytes:
        """UTF-8, perhaps a part of a character, that an id stands for as a rule; none for a special one."""
        return self.decode([token_id]).encode()

    def spells_exactly(self) -> bool:
        """Whether the bytes of each token of any text are `bytes_of_id`."""
        return False

    def text_bytes(self, text: str, ids: np.ndarray) -> np.ndarray:
        """How many bytes of `text` each of `ids` (n,), which it is encoded as, stands for: (n,) int64, together all."""
        return stretched(self.bytes_of_id[ids], len(text.encode()))

    def encode_parts(self, parts: Sequence[str]) -> PlacedIds:
        """Ids of a text that a chat template wrote, each with its place in ``"".join(parts)``: in turn text, perhaps
        empty, in which what spells a special token is text, and the spelling of one that is meant. No border but a
        special token's cuts what is encoded."""
        placed, done = PlacedIds(), 0
        for number, part in enumerate(parts):
            ids = [self.special_tokens[part]] if number % 2 else self.encode(part)
            ends = [len(part)] if number % 2 else self._ends(part, ids)
            # an id that ends no character stands for the one that the next ids go on with
            starts = [min(end, len(part) - 1) for end in [0, *ends][: len(ids)]]
            ends = [max(start + 1, end) for start, end in zip(starts, ends, strict=True)]
            placed.ids += ids
            placed.starts += [done + start for start in starts]
            placed.ends += [done + end for end in ends]
            done += len(part)
        return placed

    def _ends(self, text: str, ids: Sequence[int]) -> list[int]:
        """How many characters of `text` are written once each of its `ids` is."""
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
        """Spellings of the special tokens, with their ids; `UserError` as of `to_huggingface`."""
        return special_tokens_of(self.to_huggingface())

    @functools.cached_property
    def special_pattern(self) -> re.Pattern[str]:
        """What finds them in a text; splitting by it keeps them. Of two that begin alike the longer is found."""
        spellings = sorted(self.special_tokens, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, spellings)) or '(?!)'})")

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`: nothing for special ones, U+FFFD for broken UTF-8, `ValueError` for one out of range."""

    @abstractmethod
    def stream_decoder(self) -> StreamDecoder: ...

    def decoder_after(self, ids: Sequence[int]) -> StreamDecoder:
        """A decoder of what goes on after these `ids`, perhaps a chat template's: the text of all, without theirs."""
        return self.stream_decoder()

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything needed to make this tokenizer again, as JSON types."""

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Tokenizer:
        """The inverse of `state`, of a kind that is saved as itself, not, as `ExtendedTokenizer` is, as another."""
        raise NotImplementedError

    def to_huggingface(self) -> tokenizers.Tokenizer:
        """A new tokenizer of the Rust library with this vocabulary; `UserError` if its terms cannot say it exactly.
        Without special tokens added it gives the ids of `encode`, and skipping them the text of `decode`, but that text
        which spells a special token is that token (unless ``encode_special_tokens`` is True)."""
        raise UserError(
            f"tokenizer={self.kind} cannot be exported to Hugging Face's form: "
            f"{type(self).__name__} has no method to_huggingface"
        )

    def save(self, folder: Path) -> None:
        """Write ``slm_tokenizer.json`` into an existing `folder`, whole or not at all."""
        with new_file(folder / TOKENIZER_FILE) as out:
            out.write(self._json(self.state()).encode())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the saved form without what only describes it: equal fingerprints encode every text alike."""
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
