"""Words: text cut by a regular expression, the most frequent pieces kept."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import regex
import tokenizers
from annotated_types import Ge

from slm.errors import UserError
from slm.registry import register_tokenizer
from slm.tokenizers.rust_regex import check_export, rust_regex
from slm.tokenizers.simple import N_SPECIAL, PieceTokenizer

DEFAULT_PATTERN = r"\w+|[^\w\s]|\s+"  # a word (letters, digits, underscores), another character, or whitespace
MOST_COUNTED = 4_000_000  # different pieces that are counted at a time, about 100 bytes each
MIN_VOCAB_SIZE = N_SPECIAL + 1


@register_tokenizer("regex")
class RegexTokenizer(PieceTokenizer):
    """One id a piece of text seen often enough in fitting; any other piece is `<unk>`.

    A piece is what `pattern` matches, and text between two matches is one as well, so nothing is lost.
    """

    kind = "regex"

    def __init__(self, pieces: Sequence[str], pattern: str) -> None:
        super().__init__(pieces)
        self._pattern = _compile(pattern)
        self._id_of_piece = {piece: i for i, piece in enumerate(self._pieces, start=N_SPECIAL)}

    @classmethod
    def create(
        cls,
        texts: Iterable[str],
        *,
        max_vocab_size: Annotated[int, Ge(MIN_VOCAB_SIZE)] = 30_000,
        min_frequency: Annotated[int, Ge(1)] = 2,
        pattern: str = DEFAULT_PATTERN,
    ) -> RegexTokenizer:
        """Fit on `texts`: their most frequent pieces, equally frequent ones in the order of their code points.

        Of `max_vocab_size` ids 3 are special. A piece seen less than `min_frequency` times is `<unk>`, which from 2 on
        has something to learn from. `pattern` is in the syntax of the package `regex`.
        """
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
        return list(itertools.accumulate(map(len, _split(self._pattern, text))))

    def _rust_regex(self) -> tokenizers.Regex:
        return rust_regex(self._pattern.pattern, "tokenizer.pattern", spell_sets=True)

    def to_huggingface(self) -> tokenizers.Tokenizer:
        backend = super().to_huggingface()
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
