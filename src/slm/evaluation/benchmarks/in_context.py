"""What a model makes of what it read before: the loss late in a context less that early in it (Olsson et al. 2022)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slm.errors import UserError
from slm.evaluation.benchmark_config import BenchmarkConfig, InContextSettings, files_at
from slm.evaluation.benchmarks.findings import Findings, mean, standard_error
from slm.evaluation.reader import Reader
from slm.files.reading import bounded_text
from slm.scoring.token_scores import ScoreRequest

if TYPE_CHECKING:  # which imports Lightning
    from slm.data.batches.datamodule import WindowDataModule

LATE, MOST_WINDOWS = 500, 512  # Olsson et al.'s position; so many windows unless a limit says otherwise
_MOST_BYTES = 128 << 20

Windows = Callable[[Reader, int], Iterable[Sequence[int]]]
"""A reader and a length to windows of at least so many tokens of text; shorter ones are passed over."""


@dataclass(frozen=True)
class InContext:
    """``score`` is the loss of the token at position `late`, from 0 on, less that of the one at `early`, in nats a
    token, over windows of running text: below 0, and the further the more a model makes of its context."""

    settings: InContextSettings
    windows: Windows
    longest: int | None  # that windows are; None for what the model reads
    most: int

    def __call__(self, reader: Reader) -> Findings:
        early, late = self.settings.early, self._late(reader)
        asked: list[ScoreRequest] = []
        fit = (window for window in self.windows(reader, late + 1) if len(window) > late)
        for window in itertools.islice(fit, self.most):
            asked += [ScoreRequest(window[:place], [window[place]]) for place in (early, late)]
        if not asked:
            raise UserError(
                f"in_context: no text has {late + 1} tokens; give longer ones, or a smaller in_context.late"
            )
        losses = [-one.logprobs[0] for one in reader.scores(asked)]
        at_early, at_late = losses[::2], losses[1::2]
        changes = [b - a for a, b in zip(at_early, at_late, strict=True)]
        figures = {
            "score": mean(changes),
            "loss_early": mean(at_early),
            "loss_late": mean(at_late),
            "windows": len(changes),
        }
        return Findings(figures, {"early": early, "late": late, "standard_error": standard_error(changes)})

    def _late(self, reader: Reader) -> int:
        room = min(reader.longest, self.longest or reader.longest)
        late = min(LATE, room) if self.settings.late == "auto" else self.settings.late
        if late > room:
            raise UserError(f"in_context.late: position {late} is behind what is read, {room} tokens; set at most that")
        if late <= self.settings.early:
            early = self.settings.early
            raise UserError(f"in_context.early ({early}) must be ahead of late ({late}); set it: in_context.early=…")
        return late


def in_context(config: BenchmarkConfig, otherwise: tuple[Windows, int] | None) -> InContext:
    """Of the files that the settings name, else of the windows `otherwise`, of a length; `UserError` without any."""
    settings = config.in_context
    most = MOST_WINDOWS if config.limit is None or config.limit < 1 else int(config.limit)
    if settings.path is not None:
        files = files_at(settings.path, (".txt",), "in_context.path")
        texts = [bounded_text(file, _MOST_BYTES, "give a text file in UTF-8") for file in files]
        return InContext(settings, lambda reader, length: _windows_of(texts, reader, length), None, most)
    if otherwise is None:
        raise UserError(
            "in_context.path is missing: there is no run whose text could be read; set it: in_context.path=…"
        )
    return InContext(settings, *otherwise, most)


def _windows_of(texts: Sequence[str], reader: Reader, length: int) -> Iterator[Sequence[int]]:
    for text in texts:
        ids = reader.tokenizer.encode_arrays([text])[0].tolist()
        yield from (ids[start : start + length] for start in range(0, len(ids), length))


def windows_in(data: WindowDataModule, reader: Reader, length: int) -> Iterator[Sequence[int]]:
    """Those of the part that is validated on, with the label of their last token; none that holds what is no label."""
    for part in data.parts(data.eval_split):
        for number in range(len(part)):
            window = part[number]
            if bool((window["labels"] >= 0).all()):
                yield [*window["input_ids"].tolist(), int(window["labels"][-1])]
