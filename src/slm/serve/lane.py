"""The texts of all requests to one model, a step at a time."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterable

from slm.generation.config import GenerationConfig
from slm.generation.language_model import LanguageModel
from slm.generation.request import End, Event, PromptRead, Token
from slm.notices import notice
from slm.serve.jobs import Broken, Finished, Job, News, Piece, Text


class Lane:
    """Used by one thread alone. `settings` say how many texts are written at a time."""

    def __init__(self, language_model: LanguageModel, settings: GenerationConfig, max_len: int) -> None:
        self.engine = language_model.engine(settings, alike=False, max_len=max_len)
        self._texts = self.engine.begun(settings.batch_size, hurries=True)
        self._known: dict[int, tuple[Job, Text]] = {}
        self._numbers = itertools.count()

    @property
    def busy(self) -> bool:
        return self._texts.busy

    @property
    def n_waiting(self) -> int:
        return len(self._texts.waiting)

    @property
    def n_running(self) -> int:
        return len(self._texts.rows)

    def add(self, job: Job) -> None:
        """Its requests are none that the engine would refuse."""
        for text in job.texts:
            number = next(self._numbers)
            self._known[number] = job, text
            self._texts.waiting.append(self.engine.row(number, text.growing.request))

    def end(self, job: Job) -> None:
        """Its texts end as far as they are."""
        for number, (owner, _) in self._known.items():
            if owner is job:
                self._texts.stop(number)

    def forget(self, job: Job) -> None:
        """Nobody waits for it any more."""
        self.end(job)
        self._known = {number: known for number, known in self._known.items() if known[0] is not job}

    def step(self) -> list[tuple[Job, News]]:
        """A token of each text; a fault breaks all that are under way, and the next ones go on."""
        try:
            events = self._texts.step()
        except Exception as error:
            notice(f"a step failed: {''.join(traceback.format_exception(error))}")
            return self._broken(f"{type(error).__name__}: {error}")
        return list(self._told(events))

    def _told(self, events: Iterable[Event]) -> Iterable[tuple[Job, News]]:
        for event in events:
            if event.index not in self._known:
                continue
            job, text = self._known[event.index]
            if isinstance(event, Token):
                piece = text.growing.take(event)
                if text.growing.stop.found:
                    self._texts.stop(event.index)
                if text.keeps_tokens:
                    text.tokens.append(event)
                if job.streams:
                    yield job, Piece(text, piece, event)
            elif isinstance(event, PromptRead):
                text.read = event
            else:
                del self._known[event.index]
                yield job, _finished(text, event)

    def _broken(self, reason: str) -> list[tuple[Job, News]]:
        jobs = {id(job): job for job, _ in self._known.values()}
        self._known.clear()
        self._texts.close()
        return [(job, Broken(reason)) for job in jobs.values()]


def _finished(text: Text, end: End) -> Finished:
    piece = text.growing.close()
    if end.token is not None:
        text.tokens.append(end.token)
    text.completion = text.growing.completed(end.reason, False, None)
    return Finished(text, piece)
