"""Closed lists of pieces: characters, the smallest vocabulary that reads well, and words cut by a pattern."""

from __future__ import annotations

import functools
import itertools
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import regex
import tokenizers
from annotated_types import Ge
from tokenizers import decoders, models, pre_tokenizers

from slm.errors import UserError
from slm.files.reading import bounded_text, is_unicode
from slm.registry import register_tokenizer
from slm.tokenizers.rust_regex import check_export, rust_regex
from slm.tokenizers.stream import ByteTableTokenizer

N_SPECIAL = 3
_REPLACEMENT = "\ufffd"
DEFAULT_PATTERN = r"\w+|[^\w\s]|\s+"  # a word (letters, digits, underscores), another character, or whitespace
MOST_COUNTED = 4_000_000  # different pieces that are counted at a time, about 100 bytes each
MIN_VOCAB_SIZE = N_SPECIAL + 1
_MOST_VOCABULARY_BYTES = 1 << 28  # of a text that is read for its characters alone


class PieceTokenizer(ByteTableTokenizer):
    """A closed list: id 0 is `<unk>`, read as U+FFFD, 1 ends a text, 2 pads, and from 3 on are distinct `pieces`; or,
    not `specials_first`, pieces from 0 on, and then these three."""

    specials_first: ClassVar[bool] = True

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = list(pieces)
        spelt = [piece.encode() for piece in self._pieces]
        special = [_REPLACEMENT.encode(), b"", b""]
        self._token_bytes = [*special, *spelt] if self.specials_first else [*spelt, *special]
        self.vocab_size = len(self._token_bytes)
        self.first_id = N_SPECIAL if self.specials_first else 0  # of the pieces
        self.unk_id = 0 if self.specials_first else len(pieces)
        self.eos_id, self.pad_id = self.unk_id + 1, self.unk_id + 2

    @abstractmethod
    def split(self, text: str) -> Sequence[str]:
        """The pieces of `text`, one for each of its ids."""

    def _exported(self, cutter: tokenizers.Regex) -> tokenizers.Tokenizer:
        # Only the model knows the unknown token. `transformers` makes whatever it is told to be an ``unk_token``
        # special, and special tokens leave nothing in decoded text; here an unknown piece leaves U+FFFD.
        unk, eos, pad = (_unlike(self._pieces, name) for name in ("<unk>", "<|endoftext|>", "<|pad|>"))
        special = {text: i for i, text in enumerate((unk, eos, pad), self.unk_id)}
        vocab = {**special, **{piece: i for i, piece in enumerate(self._pieces, self.first_id)}}
        backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token=unk))
        backend.pre_tokenizer = pre_tokenizers.Split(cutter, behavior="isolated")
        backend.decoder = decoders.Replace(unk, _REPLACEMENT)
        backend.add_special_tokens([eos, pad])
        return backend

    @functools.cached_property
    def bytes_of_id(self) -> np.ndarray:
        found = np.array(list(map(len, self._token_bytes)))
        found[self.unk_id] = 1  # an unknown piece: of one character
        return found

    def text_bytes(self, text: str, ids: np.ndarray) -> np.ndarray:
        found = self.bytes_of_id[ids]
        unknown = np.flatnonzero(ids == self.unk_id)
        if len(unknown):  # stands for what is written there
            pieces = self.split(text)
            found[unknown] = [len(pieces[i].encode()) for i in unknown.tolist()]
        return found

    def state(self) -> dict[str, Any]:
        return {"pieces": self._pieces}


def _unlike(pieces: Sequence[str], name: str) -> str:
    """`name` in as many brackets as it takes to occur in no piece."""
    while any(name in piece for piece in pieces):
        name = f"<{name}>"
    return name


@register_tokenizer("simple")
class SimpleTokenizer(PieceTokenizer):
    """One id a character seen in fitting; any other character is `<unk>`."""

    kind = "simple"

    def __init__(self, pieces: Sequence[str]) -> None:
        super().__init__(pieces)
        codes = np.fromiter(map(ord, pieces), dtype=np.int64, count=len(pieces))
        # Indexed by code point; the last entry stays unknown and catches all that lie beyond.
        self._id_of_code = np.full(codes.max(initial=0) + 2, self.unk_id, dtype=np.int64)
        self._id_of_code[codes] = np.arange(len(pieces)) + self.first_id

    @classmethod
    def create(cls, texts: Iterable[str]) -> SimpleTokenizer:
        """Fit on the set of characters in `texts`, sorted by code point."""
        characters = {character for text in texts for character in set(text)}
        if not characters:
            raise UserError("tokenizer=simple got no text to collect characters from: check that the data is not empty")
        return cls(sorted(characters))

    def encode(self, text: str) -> list[int]:
        codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
        return self._id_of_code[np.minimum(codes, len(self._id_of_code) - 1)].tolist()

    def split(self, text: str) -> str:
        return text

    def to_huggingface(self) -> tokenizers.Tokenizer:
        return self._exported(tokenizers.Regex(r"[\s\S]"))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> SimpleTokenizer:
        return cls(state["pieces"])


@register_tokenizer("characters")
class CharactersTokenizer(SimpleTokenizer):
    """Given characters by ids from 0 on, nanoGPT's say; any other character is `<unk>`."""

    kind = "characters"
    specials_first = False

    @classmethod
    def create(cls, texts: Iterable[str], *, path: str) -> CharactersTokenizer:  # type: ignore[override]
        """Those that the text in the file `path` holds, sorted by code point; of JSON those that it lists (a text or a
        list of them in their order, or an object of characters with their ids). `UserError` if it is neither."""
        file = Path(path).expanduser()
        text = bounded_text(file, _MOST_VOCABULARY_BYTES, "give the text that the ids were made of")
        return cls(_listed(file, text) if file.suffix.lower() == ".json" else sorted(set(text)))

    @classmethod
    def source_files(cls, *, path: str) -> list[Path]:  # type: ignore[override]
        file = Path(path).expanduser()
        if not file.is_file():
            raise UserError(f"tokenizer.path: there is no file '{path}'; give the text that the ids were made of")
        return [file]


def _listed(file: Path, text: str) -> list[str]:
    """The characters of a JSON file in the order of their ids."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"tokenizer.path: {file} is no JSON ({error}); mend it") from None
    if isinstance(content, dict) and isinstance(content.get("stoi"), dict):
        content = content["stoi"]  # as nanoGPT calls it
    if isinstance(content, dict):
        ids = list(content.values())
        in_order = all(type(i) is int for i in ids) and sorted(ids) == list(range(len(ids)))
        listed = sorted(content, key=content.__getitem__) if in_order else []
    else:
        listed = list(content) if isinstance(content, str | list) else []
    if not listed or not all(map(_is_character, listed)) or len({*listed}) < len(listed):
        raise UserError(
            f"tokenizer.path: {file} holds no list of different characters in the order of their ids, nor an object of "
            'characters with ids 0, 1, …; e.g. {"a": 0, "b": 1}'
        )
    return listed


def _is_character(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 1 and is_unicode(value)


@register_tokenizer("regex")
class RegexTokenizer(PieceTokenizer):
    """One id a piece of text that `pattern` matches, or between two matches, seen often enough; others are `<unk>`."""

    kind = "regex"

    def __init__(self, pieces: Sequence[str], pattern: str) -> None:
        super().__init__(pieces)
        self._pattern = _compile(pattern)
        self._id_of_piece = {piece: i for i, piece in enumerate(self._pieces, start=self.first_id)}

    @classmethod
    def create(
        cls,
        texts: Iterable[str],
        *,
        max_vocab_size: Annotated[int, Ge(MIN_VOCAB_SIZE)] = 30_000,
        min_frequency: Annotated[int, Ge(1)] = 2,
        pattern: str = DEFAULT_PATTERN,
    ) -> RegexTokenizer:
        """Fit on `texts`: their most frequent pieces, equally frequent ones in the order of their code points. Of
        `max_vocab_size` ids 3 are special; from a `min_frequency` of 2 on `<unk>` has something to learn from."""
        compiled = _compile(pattern)
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(_split(compiled, text))
            if len(counts) > MOST_COUNTED:  # memory is bounded; what goes is far from frequent
                counts = Counter(dict(counts.most_common(MOST_COUNTED // 2)))
        frequent = sorted((-count, piece) for piece, count in counts.items() if count >= min_frequency)
        if not frequent:
            raise UserError(
                f"tokenizer=regex found {len(counts)} different pieces and none {min_frequency} times or more: "
                "check that the data is not empty, or lower tokenizer.min_frequency"
            )
        return cls([piece for _, piece in frequent[: max_vocab_size - N_SPECIAL]], pattern)

    def encode(self, text: str) -> list[int]:
        id_of = self._id_of_piece.get
        return [id_of(piece, self.unk_id) for piece in self.split(text)]

    def split(self, text: str) -> list[str]:
        return _split(self._pattern, text)

    def _ends(self, text: str, ids: Sequence[int]) -> list[int]:
        return list(itertools.accumulate(map(len, self.split(text))))

    def to_huggingface(self) -> tokenizers.Tokenizer:
        backend = self._exported(rust_regex(self._pattern.pattern, "tokenizer.pattern", spell_sets=True))
        check_export(self, backend, "tokenizer.pattern")
        return backend

    def state(self) -> dict[str, Any]:
        return {**super().state(), "pattern": self._pattern.pattern}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RegexTokenizer:
        return cls(state["pieces"], state["pattern"])


def _compile(pattern: str) -> regex.Pattern[str]:
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise UserError(
            f"tokenizer.pattern '{pattern}' is not a regular expression ({error}); the default is '{DEFAULT_PATTERN}'"
        ) from error


def _split(pattern: regex.Pattern[str], text: str) -> list[str]:
    """Matches and what lies between them, in order; joined, they are `text`."""
    borders = [0, *itertools.chain.from_iterable(match.span() for match in pattern.finditer(text)), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(borders) if start < end]
