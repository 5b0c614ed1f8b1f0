"""The decode loop, as verbs: decode one token a row, prefill prompts into rows that are free, sample."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from slm.generation.graphed_step import GraphedStep
from slm.generation.prefixes import Prefix, Prefixes
from slm.generation.request import Alternatives, End, Event, PromptRead, Token
from slm.generation.row import Row, drawn, tokens_of, uniforms
from slm.generation.sampling import likeliest
from slm.models.contract import CausalLM
from slm.models.inference.kv_cache import KVCache

_MOST_PADDING = 1.25  # prompts are read together while that makes at most a quarter more tokens than they have
_MOST_READ_TOGETHER = 8192  # tokens; more gain no speed, and the widest activations of 16 long prompts take gigabytes
_SCORED_TOGETHER = 256  # positions whose logits are held at a time
_SMALLEST_ROOM = 512  # positions of a cache that grows; it doubles


class SideBySide:
    """Texts that are written `n_rows` at a time. Those that wait are begun in their order, several at once where rows
    are free; `hurries`: as soon as one is, or a step later. `room`: positions that no row needs more of; None: unknown,
    the cache grows. A text that `slides` forgets the older half of its positions when the cache is full; `leased` gives
    a step of fixed shapes for rows and positions, if there is one; other arguments as of an `Engine`. What one of
    `prefixes` begins with is not read again."""

    def __init__(
        self,
        model: CausalLM,
        ends: frozenset[int],
        vocab_size: int | None,
        n_rows: int,
        *,
        room: int | None = None,
        hurries: bool = False,
        slides: bool = False,
        leased: Callable[[int, int], GraphedStep | None] = lambda n_rows, room: None,
        prefixes: Prefixes | None = None,
    ) -> None:
        self.model = model
        self.n_rows = n_rows
        self._ends = ends
        self._vocab_size = vocab_size
        self._slides = slides
        self._leased = leased
        self._prefixes = prefixes
        self.waiting: deque[Row] = deque()
        self.rows: list[Row] = []
        self._hurries = hurries
        self._passed = False  # a step had a row free and did not use it
        self._room = room
        self._cache: KVCache | None = None
        self._step: GraphedStep | None = None
        self._tokens = self._logits = torch.empty(0)  # the next of each row, and where they were drawn from

    @property
    def busy(self) -> bool:
        return bool(self.rows or self.waiting)

    def stop(self, index: int) -> None:
        """End a text after the token that was given out last; one that waits is not begun. Its end comes with the next
        step."""
        for row in (*self.rows, *self.waiting):
            if row.index == index:
                row.ended = "stop"

    def close(self) -> None:
        """Leave all texts as they are, and give back what they were written in."""
        self.rows, self._cache = [], None
        self.waiting.clear()
        self._tokens = self._logits = torch.empty(0)
        if self._step is not None:
            self._step.lock.release()
            self._step = None

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """A token of each text under way; the first of those that could begin, and what was found of their prompts; the
        ends of those that have them all."""
        events: list[Event] = [*self._left()]
        if self.rows:
            self._decode()
        events += self._admitted()
        events += self._given()
        events += self._left()
        if not self.busy:
            self.close()
        return events

    def _left(self) -> list[End]:
        left = [row for row in self.waiting if row.ended]
        if left:
            self.waiting = deque(row for row in self.waiting if not row.ended)
        alive = list(range(len(self.rows)))
        for place in reversed(range(len(self.rows))):
            if self.rows[place].ended:
                left.append(self.rows[place])
                self._remember(place)
                self._kv.drop(place)
                self.rows[place], alive[place] = self.rows[-1], alive[-1]
                del self.rows[-1], alive[-1]
        if len(alive) < len(self._tokens):
            self._tokens = self._tokens[alive]
        return [End(row.index, row.ended, row.last) for row in left if row.ended]

    @property
    def _kv(self) -> KVCache:
        assert self._cache is not None, "rows are in use"
        return self._cache

    def _decode(self) -> None:
        model, cache, step = self.model, self._kv, self._step
        for place in range(len(self.rows)):
            if self._slides and cache.lengths[place] == cache.max_len:
                cache.forget(place, max(1, cache.max_len // 2))
        if step is None:
            self._logits = model.head(model.hidden_states(self._tokens[:, None], cache)[:, -1])
        else:
            self._tokens, self._logits = step(self._tokens, uniforms(self.rows) if step.draws else [])
        if step is None or not step.draws:
            self._tokens = self._sampled(self._logits, self.rows)

    def _sampled(self, logits: Tensor, rows: Sequence[Row]) -> Tensor:
        return drawn(logits[:, : self._vocab_size], rows)

    def _admitted(self) -> list[PromptRead]:
        n_free = self.n_rows - len(self.rows)
        if not self.waiting or not n_free:
            return []
        many = n_free >= max(1, self.n_rows // 4) or n_free >= len(self.waiting)
        if not many and not (self._hurries and self._passed):
            self._passed = True
            return []
        self._passed = False
        new = [self.waiting.popleft() for _ in range(min(n_free, len(self.waiting)))]
        self._make_room(max(row.room for row in new))
        before, found = len(self.rows), []
        first = []
        known = {row: prefix for row in new if (prefix := self._prefix(row)) is not None}
        for together in [*_of_like_length([row for row in new if row not in known]), *([row] for row in known)]:
            prompts = [row.prompt for row in together]
            prefix = known.get(together[0])
            hidden = prefill(self.model, prompts, self._kv, prefix)
            first.append(self.model.head(_last(hidden, prompts, 0 if prefix is None else len(prefix))))
            found += [self._read(row, hidden[i]) for i, row in enumerate(together) if row.prompt_logprobs]
            self.rows += together
        logits = torch.cat(first)
        tokens = self._sampled(logits, self.rows[before:])
        self._tokens = torch.cat([self._tokens, tokens]) if before else tokens
        self._logits = torch.cat([self._logits, logits]) if before else logits
        return found

    def _prefix(self, row: Row) -> Prefix | None:
        return None if self._prefixes is None or row.prompt_logprobs else self._prefixes.of(row.prompt)

    def _remember(self, place: int) -> None:
        cache, row = self._kv, self.rows[place]
        if self._prefixes is not None and type(cache) is KVCache and not cache.offsets[place]:
            self._prefixes.keep([*row.prompt, *row.text][: cache.lengths[place]], *cache.copied(place))

    def _make_room(self, needed: int) -> None:
        """A cache for so many positions a row; what rows under way hold goes over into it."""
        room, longest = self._room, self.model.config.params.max_seq_len
        if self._cache is not None and (room is not None or min(needed, longest) <= self._cache.max_len):
            return
        if room is None:
            room = min(longest, max(_SMALLEST_ROOM, 1 << (needed - 1).bit_length()))
        step = self._leased(self.n_rows, room)
        cache = self.model.make_cache(self.n_rows, room) if step is None else step.cache
        if self._room is None and step is None and not isinstance(cache, KVCache):
            cache = self.model.make_cache(self.n_rows, longest)  # one of a model's own need not be able to grow
        cache.keep(0)
        if self._cache is not None and self.rows:
            cache.take_over(self._cache)
        if self._step is not None:
            self._step.lock.release()
        self._cache, self._step = cache, step

    def _read(self, row: Row, hidden: Tensor) -> PromptRead:
        """Of the hidden states (T, C) of a prompt, padded at its end."""
        ids = torch.tensor(row.prompt, device=hidden.device)
        logprobs: list[float | None] = [None]
        alternatives: list[Alternatives] = [()]
        for start in range(0, len(ids) - 1, _SCORED_TOGETHER):
            end = min(start + _SCORED_TOGETHER, len(ids) - 1)
            logits = self.model.head(hidden[start:end])
            of_ids, others = likeliest(logits, ids[start + 1 : end + 1], row.alternatives, self._vocab_size)
            logprobs += of_ids
            alternatives += others
        return PromptRead(row.index, tuple(row.prompt), tuple(logprobs), tuple(alternatives))

    def _given(self) -> list[Token]:
        """The tokens that were drawn last, and are their texts'."""
        tokens = tokens_of(self.rows, self._tokens, self._logits, self._vocab_size) if self.rows else []
        given = []
        for row, token in zip(self.rows, tokens, strict=True):
            if row.n_new == 0:
                row.ended = row.at_end
            elif (taken := row.take(token, self._ends)) is not None:
                given.append(taken)
        return given


def _of_like_length(rows: list[Row]) -> list[list[Row]]:
    """Those whose prompts are read together."""
    rows = sorted(rows, key=lambda row: len(row.prompt))
    groups = []
    while rows:
        n, total = 0, 0
        for row in rows:
            total += len(row.prompt)
            padded = (n + 1) * len(row.prompt)
            if n and (padded > _MOST_PADDING * total or padded > _MOST_READ_TOGETHER):
                break
            n += 1
        groups.append(rows[:n])
        rows = rows[n:]
    return groups


def prefill(model: CausalLM, prompts: Sequence[Sequence[int]], cache: KVCache, prefix: Prefix | None = None) -> Tensor:
    """Read prompts into the next rows of the cache; hidden states (n, T, C). Shorter ones are padded at their end: what
    stands there is never seen, and is overwritten as the text grows. A single one may begin with a `prefix`, of which
    nothing is read."""
    lengths = [len(prompt) for prompt in prompts]
    if prefix is not None:
        prompts = [prompt[len(prefix) :] for prompt in prompts]
    width = max(map(len, prompts))
    padded = [[*prompt, *([0] * (width - len(prompt)))] for prompt in prompts]
    start = len(cache.lengths)
    rows = cache.rows(start, start + len(prompts))
    if prefix is not None:
        rows.begin_with(prefix.keys, prefix.values)
    hidden = model.hidden_states(torch.tensor(padded, device=model.head_weight.device), rows)
    cache.append(lengths)
    return hidden


def _last(hidden: Tensor, prompts: Sequence[Sequence[int]], n_known: int) -> Tensor:
    """(n, C) hidden states of the last tokens of prompts, whose first `n_known` were not read."""
    last = torch.tensor([len(prompt) - 1 - n_known for prompt in prompts], device=hidden.device)
    return hidden[torch.arange(len(prompts), device=hidden.device), last]
