"""The decode loop, as verbs: prefill prompts, sample, decode one token a row; finished rows make room for others."""

import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from slm.errors import UserError
from slm.generation.config import GenerationConfig
from slm.generation.graphed_step import GraphedStep, GraphedSteps, sent
from slm.generation.sampling import adjusted, log_probabilities, next_tokens
from slm.models.contract import CausalLM
from slm.models.inference.kv_cache import KVCache

Reason = Literal["eos", "length", "max_seq_len", "stop", "refused"]

_MOST_PADDING = 1.25  # prompts are read together while that makes at most a quarter more tokens than they have
_MOST_READ_TOGETHER = 8192  # tokens; more gain no speed, and the widest activations of 16 long prompts take gigabytes
_DRAWN_TOGETHER = 64


@dataclass(frozen=True)
class Request:
    """One text to write; an empty prompt stands for the beginning of a text, no seed for any."""

    prompt_ids: Sequence[int]
    max_new_tokens: int
    seed: int | None = None
    refusal: str | None = None  # why it could not be read


@dataclass(frozen=True)
class Token:
    """A token that came, of the request at `index`, with its log-probability if asked for."""

    index: int
    token_id: int
    logprob: float | None = None


@dataclass(frozen=True)
class End:
    """A text that ended: at ``eos``, its ``length``, the model's ``max_seq_len``, by ``stop``; or was ``refused``."""

    index: int
    reason: Reason


@dataclass
class _Row:
    index: int
    prompt: list[int]
    n_new: int
    at_end: Reason
    seed: int | None
    text: list[int] = field(default_factory=list)
    ended: Reason | None = None
    _generator: torch.Generator | None = None
    _uniforms: list[float] = field(default_factory=list)

    def uniform(self) -> float:
        """In [0, 1): it decides the next token. Some are drawn at a time, budgets may be far too large."""
        if self._generator is None:
            self._generator = torch.Generator().manual_seed(secrets.randbits(63) if self.seed is None else self.seed)
        if len(self.text) == len(self._uniforms):
            self._uniforms += torch.rand(_DRAWN_TOGETHER, generator=self._generator).tolist()
        return self._uniforms[len(self.text)]


@dataclass
class Engine:
    """Writes any number of texts, as many at a time as there are rows. A text is the same whatever is written beside
    it: its tokens depend on its prompt, its seed and the settings alone (to the rounding of other products)."""

    model: CausalLM  # in eval mode
    settings: GenerationConfig
    eos_id: int  # stands for an empty prompt and, as `end_ids`, ends a text if ``stop_at_eos``
    vocab_size: int | None = None  # ids from here on never come: a tokenizer may have fewer than the model
    end_ids: Iterable[int] = ()
    steps: GraphedSteps | None = None  # where one of them fits, it decodes

    def __post_init__(self) -> None:
        self._ends = frozenset((self.eos_id, *self.end_ids)) if self.settings.stop_at_eos else frozenset()
        self._device = self.model.head_weight.device
        self._max_seq_len = self.model.config.params.max_seq_len
        self._slides = self.settings.overflow == "slide"
        self._rows: list[_Row] = []
        kind = self.model.config.modules.position_embedding.kind
        if self._slides and kind not in ("rotary", "none"):
            needs = "generation.overflow=slide needs rotary positions (or none)"
            raise UserError(f"{needs}; this model's are {kind}: overflow=stop")

    def stop(self, index: int) -> None:
        """End a text after the token that was given out last (a stop string was found in it)."""
        for row in self._rows:
            if row.index == index:
                row.ended = "stop"

    @torch.inference_mode()
    def run(self, requests: Sequence[Request], others_go_on: bool = False) -> Iterator[Token | End]:
        """Tokens as they come, and an `End` for each request; requests begin in their order. Raises `UserError`, before
        anything is written, where a prompt leaves no room for a new token or has an id that the model has not; where
        `others_go_on`, if any is left, it ends at once."""
        refused = {index for index, request in enumerate(requests) if others_go_on and self.problem(request)}
        if len(refused) == len(requests):
            refused.clear()
        waiting = deque(self._row(index, request) for index, request in enumerate(requests) if index not in refused)
        if not waiting:
            return
        yield from (End(index, "refused") for index in sorted(refused))
        n_rows = min(self.settings.batch_size, len(waiting))
        longest = max(len(row.prompt) + row.n_new for row in waiting)
        room = min(longest - 1, self._max_seq_len)  # the last new token is never read
        shape = (n_rows, room, self.vocab_size)
        step = None if self.steps is None else self.steps.lease(self.model, self.settings, *shape)
        try:
            cache = self.model.make_cache(n_rows, room) if step is None else step.cache
            yield from self._write(waiting, cache, n_rows, step)
        finally:
            if step is not None:
                step.lock.release()

    def _write(self, todo: deque[_Row], cache: KVCache, n_rows: int, step: GraphedStep | None) -> Iterator[Token | End]:
        cache.keep(0)
        rows = self._rows = []
        tokens = logits = torch.empty(0)  # the next of each row, and where they were drawn from
        while rows or todo:
            n_free = n_rows - len(rows)
            if todo and (n_free >= max(1, n_rows // 4) or n_free >= len(todo)):
                new = [todo.popleft() for _ in range(min(n_free, len(todo)))]
                first = self._prefill(new, cache, rows)
                drawn = self._sample(first, rows[-len(first) :])
                tokens = torch.cat([tokens, drawn]) if len(tokens) else drawn
                logits = torch.cat([logits, first]) if len(logits) else first
            yield from self._tokens(tokens, logits, rows)
            alive = list(range(len(rows)))
            for place in reversed(range(len(rows))):
                row = rows[place]
                if row.ended:
                    cache.drop(place)
                    rows[place], alive[place] = rows[-1], alive[-1]
                    del rows[-1], alive[-1]
                    yield End(row.index, row.ended)
            if not rows:
                tokens, logits = tokens[:0], logits[:0]
                continue
            if len(alive) < len(tokens):
                tokens = tokens[alive]
            for place in range(len(rows)):
                if self._slides and cache.lengths[place] == cache.max_len:
                    cache.forget(place, max(1, cache.max_len // 2))
            if step is None:
                logits = self.model.head(self.model.hidden_states(tokens[:, None], cache)[:, -1])
            else:
                tokens, logits = step(tokens, self._uniforms(rows) if step.draws else [])
            if step is None or not step.draws:
                tokens = self._sample(logits, rows)

    def _prefill(self, new: list[_Row], cache: KVCache, rows: list[_Row]) -> Tensor:
        # those of like length together; logits (n, V)
        new.sort(key=lambda row: len(row.prompt))
        logits = []
        while new:
            n, total = 0, 0
            for row in new:
                total += len(row.prompt)
                padded = (n + 1) * len(row.prompt)
                if n and (padded > _MOST_PADDING * total or padded > _MOST_READ_TOGETHER):
                    break
                n += 1
            logits.append(prefill(self.model, [row.prompt for row in new[:n]], cache))
            rows += new[:n]
            new = new[n:]
        return torch.cat(logits)

    def _sample(self, logits: Tensor, rows: list[_Row]) -> Tensor:
        logits = logits[:, : self.vocab_size]
        logits = adjusted(logits, self.settings, [row.prompt for row in rows], [row.text for row in rows])
        numbers = self._uniforms(rows)
        return next_tokens(logits, self.settings, sent(numbers, torch.float32, self._device) if numbers else None)

    def _uniforms(self, rows: list[_Row]) -> list[float]:
        return [] if self.settings.greedy else [row.uniform() for row in rows]

    def _tokens(self, tokens: Tensor, logits: Tensor, rows: list[_Row]) -> Iterator[Token]:
        wanted = self.settings.logprobs
        logprobs = log_probabilities(logits, tokens).tolist() if wanted else [None] * len(rows)
        for row, token_id, logprob in zip(list(rows), tokens.tolist(), logprobs, strict=True):
            if token_id in self._ends:
                row.ended = "eos"
                continue
            row.text.append(token_id)
            if len(row.text) == row.n_new:
                row.ended = row.at_end
            yield Token(row.index, token_id, logprob)

    def problem(self, request: Request) -> str | None:
        """Why `run` would refuse it; None if it would not."""
        if request.refusal is not None:
            return request.refusal
        known, longest, given = self.model.config.vocab_size, self._max_seq_len, request.prompt_ids
        if unknown := [token_id for token_id in given if not 0 <= token_id < known]:
            return f"the prompt has the token id {unknown[0]}; this model's are 0 to {known - 1}"
        if len(given) >= longest and not self._slides:
            taken = f"this model takes {longest}, one of them new: shorten the prompt to {longest - 1}"
            return f"the prompt has {len(given)} tokens; {taken}"
        return None

    def _row(self, index: int, request: Request) -> _Row:
        if (problem := self.problem(request)) is not None:
            raise UserError(problem)
        prompt, budget = list(request.prompt_ids) or [self.eos_id], request.max_new_tokens
        if self._slides:
            return _Row(index, prompt[-max(1, self._max_seq_len - 1) :], budget, "length", request.seed)
        n_new = min(budget, self._max_seq_len - len(prompt))
        return _Row(index, prompt, n_new, "length" if n_new == budget else "max_seq_len", request.seed)


def prefill(model: CausalLM, prompts: Sequence[Sequence[int]], cache: KVCache) -> Tensor:
    """Read prompts into the next rows of the cache; logits (n, V) of the token that follows each. Shorter ones are
    padded at their end: what stands there is never seen, and is overwritten as the text grows."""
    lengths = [len(prompt) for prompt in prompts]
    width = max(lengths)
    padded = [[*prompt, *([0] * (width - len(prompt)))] for prompt in prompts]
    start = len(cache.lengths)
    rows = cache.rows(start, start + len(prompts))
    device = model.head_weight.device
    hidden = model.hidden_states(torch.tensor(padded, device=device), rows)
    cache.append(lengths)
    last = torch.tensor(lengths, device=device) - 1
    return model.head(hidden[torch.arange(len(prompts), device=device), last])
