"""What a model thinks of tokens that are given: log-probabilities, whether they are its likeliest, and what else is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from slm.errors import UserError
from slm.models.contract import CausalLM
from slm.models.inference.kv_cache import KVCache
from slm.models.kernels.products import largest_places
from slm.scoring.token_tree import TokenTree, TreeCache, trees_of
from slm.scoring.windows import fitting

_MOST_PADDING = 1.25  # rows are read together while that makes at most a quarter more tokens than they have
_MOST_READ_TOGETHER = 8192  # tokens
_LOGITS_HELD = 2**23  # numbers: the head is multiplied with so many rows at a time


class ScoreRequest(NamedTuple):
    """Ids to score, after ids that are read ahead of them."""

    context: Sequence[int]
    continuation: Sequence[int]


@dataclass(frozen=True)
class TokenScores:
    """Of each token of a continuation."""

    logprobs: list[float]  # in nats, fp32 or better; nan of a first token that nothing stands ahead of
    greedy: list[bool]  # whether it is the likeliest there
    top: list[Sequence[tuple[int, float]]]  # so many as were asked for, ids and log-probabilities, the likeliest first

    @property
    def total(self) -> float:
        """Of the whole continuation, in nats."""
        return math.fsum(self.logprobs)

    @property
    def is_greedy(self) -> bool:
        """The whole continuation is what the model, always taking the likeliest token, would write."""
        return all(self.greedy)


def token_scores(
    model: CausalLM, requests: Sequence[ScoreRequest], batch_size: int = 16, top: int = 0
) -> list[TokenScores]:
    """The scores of each request, in their order; see `each_scored`."""
    done = dict(each_scored(model, requests, batch_size, top))
    return [done[index] for index in range(len(requests))]


def each_scored(
    model: CausalLM, requests: Sequence[ScoreRequest], batch_size: int = 16, top: int = 0
) -> Iterator[tuple[int, TokenScores]]:
    """The index of a request, and its scores, as they come: sorted by length, so in another order.

    Args:
        model: in eval mode, in whatever form decoding has it (prepared, quantized) or training.
        batch_size: sequences that are read at a time; what requests have in common at their beginning is read once.
        top: how many of the likeliest tokens are told at each place.

    Raises:
        UserError: an id that the model has not.
    """
    longest = model.config.params.max_seq_len
    parts: list[ScoreRequest] = []
    owner: list[tuple[int, int]] = []  # of each part: its request, and which of its parts it is
    expected = []
    for index, request in enumerate(requests):
        _check_ids(model, request)
        windows = fitting(*request, longest)
        expected.append(len(windows))
        parts += [ScoreRequest(*window) for window in windows]
        owner += [(index, number) for number in range(len(windows))]
    held: dict[int, dict[int, TokenScores]] = {}
    for part, scores in _parts_scored(model, parts, batch_size, top):
        index, number = owner[part]
        got = held.setdefault(index, {})
        got[number] = scores
        if len(got) == expected[index]:
            yield index, _joined([got[number] for number in range(len(held.pop(index)))])


def _check_ids(model: CausalLM, request: ScoreRequest) -> None:
    known = model.config.vocab_size
    if wrong := [i for ids in request for i in ids if not 0 <= i < known]:
        raise UserError(f"a text to score has the token id {wrong[0]}; this model's are 0 to {known - 1}")


def _joined(scores: list[TokenScores]) -> TokenScores:
    if len(scores) == 1:
        return scores[0]
    return TokenScores(
        *([one for part in scores for one in getattr(part, name)] for name in ("logprobs", "greedy", "top"))
    )


def _parts_scored(
    model: CausalLM, parts: Sequence[ScoreRequest], batch_size: int, top: int
) -> Iterator[tuple[int, TokenScores]]:
    """Of parts that fit the model."""
    read = []
    for index, part in enumerate(parts):
        sequence = [*part.context, *part.continuation][:-1]  # nothing comes after the last token
        if sequence and part.continuation:
            read.append((index, sequence))
        else:
            yield index, _unread(part)
    takes_trees = _takes_trees(model)
    trees = trees_of([sequence for _, sequence in read], share=takes_trees)
    own = [parts[index] for index, _ in read]
    for batch in _batches(trees, batch_size):
        for place, scores in _batch_scored(model, batch, own, takes_trees, top):
            yield read[place][0], scores


def _unread(part: ScoreRequest) -> TokenScores:
    n = len(part.continuation)  # 0, or 1 with nothing ahead of it
    return TokenScores([math.nan] * n, [False] * n, [()] * n)


def _takes_trees(model: CausalLM) -> bool:
    """It hands what it is given as a cache to its attention, as `CausalLM.make_cache` says of a `KVCache`."""
    return type(model.make_cache(1, 1)) is KVCache


def _batches(trees: Sequence[TokenTree], batch_size: int) -> Iterator[list[TokenTree]]:
    batch: list[TokenTree] = []
    n_sequences = n_tokens = 0
    for tree in trees:  # the first of a batch is the widest, and chains are read apart: without a mask that is faster
        sequences, size = len(tree.paths), len(tree.ids)
        padded = (len(batch) + 1) * len(batch[0].ids) if batch else size
        too_many = n_sequences + sequences > batch_size or padded > _MOST_READ_TOGETHER
        of_other_kind = bool(batch) and batch[0].is_chain != tree.is_chain
        if batch and (too_many or of_other_kind or padded > _MOST_PADDING * (n_tokens + size)):
            yield batch
            batch, n_sequences, n_tokens = [], 0, 0
        batch.append(tree)
        n_sequences, n_tokens = n_sequences + sequences, n_tokens + size
    if batch:
        yield batch


@torch.inference_mode()
def _batch_scored(
    model: CausalLM, trees: list[TokenTree], parts: Sequence[ScoreRequest], takes_trees: bool, top: int
) -> list[tuple[int, TokenScores]]:
    device = model.head_weight.device
    width = len(trees[0].ids)
    ids = torch.tensor([[*tree.ids, *([0] * (width - len(tree.ids)))] for tree in trees], device=device)
    # chains too: blocks that were compiled for training know its shapes, and are left out where there is a cache
    cache = TreeCache(trees, width, device) if takes_trees else None
    hidden = model.hidden_states(ids, cache).flatten(0, 1)
    asked = [  # sequence, the places in `hidden` that say what comes next, and what does
        (index, [row * width + place for place in path[max(len(parts[index].context) - 1, 0) :]], parts[index])
        for row, tree in enumerate(trees)
        for index, path in tree.paths
    ]
    places = sorted({place for _, path, _ in asked for place in path})
    number = {place: n for n, place in enumerate(places)}
    rows = [number[place] for _, path, _ in asked for place in path]
    tokens = [token for _, path, part in asked for token in part.continuation[-len(path) :]]
    found = _at_places(model, hidden[torch.tensor(places, device=device)], rows, tokens, top)
    scored, start = [], 0
    for index, path, part in asked:
        whole = _unread(ScoreRequest((), part.continuation[: len(part.continuation) - len(path)]))
        scored.append((index, _joined([whole, _slice(found, start, start + len(path))])))
        start += len(path)
    return scored


def _slice(scores: TokenScores, start: int, stop: int) -> TokenScores:
    return TokenScores(scores.logprobs[start:stop], scores.greedy[start:stop], scores.top[start:stop])


def _at_places(model: CausalLM, hidden: Tensor, rows: list[int], tokens: list[int], top: int) -> TokenScores:
    """Scores of `tokens` (m,), each by the row of `hidden` (n, C) that `rows` (m,) names; some logits at a time."""
    device = hidden.device
    of_row, ids = torch.tensor(rows, device=device), torch.tensor(tokens, device=device)
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    logprobs = torch.empty(len(rows), device=device, dtype=dtype)
    greedy = torch.empty(len(rows), dtype=torch.bool, device=device)
    likeliest: list[list[tuple[int, float]]] = []  # of each row, where they are asked for
    step = max(1, _LOGITS_HELD // model.config.vocab_size)
    for start in range(0, len(hidden), step):
        logits = model.head(hidden[start : start + step])
        best = largest_places(logits)
        logits = logits.to(dtype)
        norms = logits.logsumexp(dim=-1)
        here = ((of_row >= start) & (of_row < start + step)).nonzero()[:, 0]
        row, token = of_row[here] - start, ids[here]
        logprobs[here] = logits[row, token] - norms[row]
        greedy[here] = best[row] == token
        if top:
            values, indices = (logits - norms[:, None]).topk(min(top, logits.shape[-1]), dim=-1)
            likeliest += [list(zip(*pair, strict=True)) for pair in zip(indices.tolist(), values.tolist(), strict=True)]
    return TokenScores(logprobs.tolist(), greedy.tolist(), [likeliest[row] if top else () for row in rows])
