"""One engine for all texts: what it is asked, and what of it can be done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from slm.errors import UserError
from slm.generation.config import GenerationConfig
from slm.generation.graphed_step import GraphedStep, GraphedSteps
from slm.generation.prefixes import Prefixes
from slm.generation.request import End, Event, Request
from slm.generation.row import Row
from slm.generation.side_by_side import SideBySide
from slm.models.contract import CausalLM


@dataclass
class Engine:
    """Writes any number of texts, as many at a time as there are rows. A text is the same whatever is written beside
    it: its tokens depend on its prompt, its seed and the settings alone (to the rounding of other products)."""

    model: CausalLM  # in eval mode
    settings: GenerationConfig  # of requests that bring none; ``overflow`` and ``batch_size`` of all
    eos_id: int  # stands for an empty prompt and, as `end_ids`, ends a text if ``stop_at_eos``
    vocab_size: int | None = None  # ids from here on never come: a tokenizer may have fewer than the model
    end_ids: Iterable[int] = ()
    steps: GraphedSteps | None = None  # where one of them fits, it decodes
    alike: bool = True  # no request brings settings that draw otherwise
    max_len: int | None = None  # the most tokens of a prompt and its text; None: what the model takes
    prefixes: Prefixes | None = None  # what was read before

    def __post_init__(self) -> None:
        self.ends = frozenset((self.eos_id, *self.end_ids))
        self.slides = self.settings.overflow == "slide"
        longest = self.model.config.params.max_seq_len
        self._max_seq_len = longest if self.max_len is None else min(self.max_len, longest)
        self._texts: SideBySide | None = None
        kind = self.model.config.modules.position_embedding.kind
        if self.slides and kind not in ("rotary", "none"):
            needs = "generation.overflow=slide needs rotary positions (or none)"
            raise UserError(f"{needs}; this model's are {kind}: overflow=stop")

    def stop(self, index: int) -> None:
        """End a text of `run` after the token that was given out last (a stop string was found in it)."""
        if self._texts is not None:
            self._texts.stop(index)

    def run(self, requests: Sequence[Request], others_go_on: bool = False) -> Iterator[Event]:
        """Tokens as they come, and an `End` for each request; requests begin in their order. Raises `UserError`, before
        anything is written, where a prompt leaves no room for a new token or has an id that the model has not; where
        `others_go_on`, if any is left, it ends at once."""
        refused = {index for index, request in enumerate(requests) if others_go_on and self.problem(request)}
        if len(refused) == len(requests):
            refused.clear()
        waiting = [self.row(index, request) for index, request in enumerate(requests) if index not in refused]
        if not waiting:
            return
        yield from (End(index, "refused") for index in sorted(refused))
        room = min(max(row.room for row in waiting), self._max_seq_len)
        texts = self._texts = self.begun(min(self.settings.batch_size, len(waiting)), room)
        texts.waiting.extend(waiting)
        try:
            while texts.busy:
                yield from texts.step()
        finally:
            texts.close()

    def begun(self, n_rows: int, room: int | None = None, hurries: bool = False) -> SideBySide:
        """No text yet; who adds rows to those `waiting` makes its steps. Arguments as of `SideBySide`."""
        shape = (self.model, self.ends, self.vocab_size, n_rows)
        return SideBySide(
            *shape, room=room, hurries=hurries, slides=self.slides, leased=self._leased, prefixes=self.prefixes
        )

    def _leased(self, n_rows: int, room: int) -> GraphedStep | None:
        if self.steps is None:
            return None
        return self.steps.lease(self.model, self.settings, n_rows, room, self.vocab_size, self.alike)

    def problem(self, request: Request) -> str | None:
        """Why `run` would refuse it; None if it would not."""
        if request.refusal is not None:
            return request.refusal
        known, longest, given = self.model.config.vocab_size, self._max_seq_len, request.prompt_ids
        if unknown := [token_id for token_id in given if not 0 <= token_id < known]:
            return f"the prompt has the token id {unknown[0]}; this model's are 0 to {known - 1}"
        if request.max_new_tokens == 0 and len(given) == longest:
            return None  # it is only read
        if len(given) >= longest and not self.slides:
            whose = "this model takes" if longest == self.model.config.params.max_seq_len else "here a text has at most"
            mend = f"one of them new: shorten the prompt to {longest - 1}"
            return f"the prompt has {len(given)} tokens; {whose} {longest}, {mend}"
        return None

    def row(self, index: int, request: Request) -> Row:
        """The text of a request ahead of its first token; `UserError` if it is refused."""
        if (problem := self.problem(request)) is not None:
            raise UserError(problem)
        prompt, n_new = list(request.prompt_ids) or [self.eos_id], request.max_new_tokens
        settings = self.settings if request.settings is None else request.settings
        own = (settings, request.seed, request.alternatives, request.prompt_logprobs)
        if self.slides:
            return Row(index, prompt[-max(1, self._max_seq_len - 1) :], n_new, "length", *own)
        fits = min(n_new, self._max_seq_len - len(prompt))
        return Row(index, prompt, fits, "length" if fits == n_new else "max_seq_len", *own)
