"""What each word of a text comes as a surprise: what reading times are compared with (Hale 2001, Levy 2008)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from slm.evaluation.benchmark_config import BenchmarkConfig, files_at
from slm.evaluation.benchmarks.findings import Findings, mean
from slm.evaluation.reader import Reader
from slm.files.reading import bounded_text
from slm.scoring.token_scores import ScoreRequest
from slm.tokenizers.text_bytes import PlacedIds

_WORD = re.compile(r"\S+")
_MOST_BYTES = 128 << 20


@dataclass(frozen=True)
class WordSurprisal:
    """Bits of each word, of texts that are read each for itself.

    A word is what stands between white space, and its surprisal the sum over its tokens of ``-log2 p``. A token belongs
    to the word in which it ends, so that white space which a vocabulary joins to the word behind it counts for that
    word, and white space at the end of a text for none. The first word is read after the beginning of a text
    (`SpelledTexts.begin_id`); where a text is longer than the model, the rolling windows are lm-eval's.
    """

    texts: Sequence[str]

    def __call__(self, reader: Reader) -> Findings:
        placed = [reader.tokenizer.encode_parts([text]) for text in self.texts]
        scores = reader.scores([ScoreRequest([reader.spelled.begin_id], one.ids) for one in placed])
        rows = [
            {"text": number, "word": word, "surprisal": bits, "tokens": n}
            for number, (text, one, found) in enumerate(zip(self.texts, placed, scores, strict=True), start=1)
            for word, bits, n in words(text, one, found.logprobs)
        ]
        bits = [row["surprisal"] for row in rows]
        figures = {"bits_per_word": mean(bits), "words": len(rows)}  # type: ignore[arg-type]
        return Findings(figures, {"after": reader.spelled.begin, "texts": len(self.texts)}, rows)


def words(text: str, placed: PlacedIds, logprobs: Sequence[float]) -> Iterator[tuple[str, float, int]]:
    """Each word of `text` with its surprisal in bits and how many tokens end in it."""
    ends = [max(end, start + 1) for start, end in zip(placed.starts, placed.ends, strict=True)]
    at = 0
    for found in _WORD.finditer(text):
        first = at
        while at < len(ends) and ends[at] <= found.end():
            at += 1
        if at < len(ends) and placed.starts[at] < found.end():  # goes on behind the word
            at += 1
        yield found[0], -math.fsum(logprobs[first:at]) / math.log(2), at - first


def word_surprisal(config: BenchmarkConfig) -> WordSurprisal:
    """Of text files, a text a line; blank lines are none."""
    texts = [
        line
        for file in files_at(config.surprisal.path, (".txt",), "surprisal.path")
        for line in bounded_text(file, _MOST_BYTES, "give a text file in UTF-8").splitlines()
        if line.strip()
    ]
    return WordSurprisal(texts[: config.taken(len(texts))])
