"""Log-probabilities of given tokens: what a plain forward pass of each sequence alone gives, whatever is shared."""

from __future__ import annotations

import math
import random
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import by_itself, small_model

from slm.errors import UserError
from slm.models.contract import CausalLM
from slm.models.inference.kv_cache import KVCache
from slm.models.inference.prepared import prepare_for_inference
from slm.scoring.token_scores import ScoreRequest, token_scores
from slm.scoring.token_tree import trees_of
from slm.scoring.windows import fitting, rolling

VOCABULARY, MAX_SEQ_LEN = 50, 32
SHAPES: dict[str, dict[str, Any]] = {
    "learned": {},
    "rotary": {"position": "rotary", "n_kv_heads": 1, "norm": "rms_norm", "mlp": "glu", "qk_norm": True},
    "sliding": {"position": "rotary", "sliding_window": 5},
}


def drawn_requests(draw: random.Random) -> list[ScoreRequest]:
    """Choices after one context, pairs that part somewhere, equal ones, beginnings of others, single tokens."""

    def ids(n: int) -> list[int]:
        return [draw.randrange(VOCABULARY) for _ in range(n)]

    context, pair = ids(12), ids(9)
    requests = [ScoreRequest(context, ids(draw.randint(1, 6))) for _ in range(4)]
    requests += [ScoreRequest(context, [token]) for token in range(3)]
    requests += [ScoreRequest([0], [*pair, *ids(3)]), ScoreRequest([0], [*pair, *ids(5)]), ScoreRequest([0], pair)]
    requests += [requests[0], ScoreRequest(ids(2), ids(20)), ScoreRequest([1], ids(4)), ScoreRequest([1], [3])]
    draw.shuffle(requests)
    return requests


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_scores_are_those_of_each_sequence_alone(shape: str, batch_size: int) -> None:
    model, requests = small_model(**SHAPES[shape]), drawn_requests(random.Random(batch_size))
    for (context, continuation), got in zip(requests, token_scores(model, requests, batch_size), strict=True):
        logprobs, greedy = by_itself(model, list(context), list(continuation))
        assert got.logprobs == pytest.approx(logprobs, abs=2e-5)
        assert got.greedy == greedy
        assert got.total == pytest.approx(sum(logprobs), abs=1e-4)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_a_prepared_model_scores_as_its_logits_say(quantize: str | None) -> None:
    model = small_model(**SHAPES["rotary"])
    prepare_for_inference(model, quantize)
    requests = drawn_requests(random.Random(3))
    for (context, continuation), got in zip(requests, token_scores(model, requests), strict=True):
        assert got.logprobs == pytest.approx(by_itself(model, list(context), list(continuation))[0], abs=1e-4)


def test_what_is_shared_is_read_once() -> None:
    """Else choices cost as many times their question as there are of them: a fault that no score shows."""
    model, context = small_model(), list(range(20))
    read = []
    model.hidden_states = lambda ids, *rest: read.append(ids.numel()) or type(model).hidden_states(model, ids, *rest)
    token_scores(model, [ScoreRequest(context, [one, one, one]) for one in range(4)])
    assert sum(read) == 20 + 4 * 2  # the last token of each is never read


def test_a_model_with_a_cache_of_its_own_gets_plain_sequences() -> None:
    class OwnCache(KVCache):
        pass

    model, seen = small_model(), []
    model.make_cache = lambda n, longest=None: OwnCache((1, n, 1, 1, 1), torch.device("cpu"), torch.float32)
    inner = type(model).hidden_states
    model.hidden_states = lambda ids, cache=None, *rest: seen.append(cache) or inner(model, ids, cache, *rest)
    requests = drawn_requests(random.Random(1))
    plain = token_scores(small_model(), requests)
    assert [one.total for one in token_scores(model, requests)] == pytest.approx([o.total for o in plain], abs=1e-4)
    assert set(seen) == {None}


def test_the_likeliest_are_told_and_no_more_than_asked_for() -> None:
    model = small_model()
    (scores,) = token_scores(model, [ScoreRequest([1, 2], [3, 4])], top=3)
    with torch.no_grad():
        wanted = model(torch.tensor([[1, 2, 3]]))[0, 1:].log_softmax(-1).topk(3)
    assert [[token for token, _ in place] for place in scores.top] == wanted.indices.tolist()
    assert [value for _, value in scores.top[1]] == pytest.approx(wanted.values[1].tolist(), abs=1e-5)
    (without,) = token_scores(model, [ScoreRequest([1, 2], [3, 4])])
    assert [list(place) for place in without.top] == [[], []]


def test_with_nothing_ahead_the_first_token_has_no_probability() -> None:
    requests = [ScoreRequest([], [4]), ScoreRequest([], [4, 5]), ScoreRequest([4], [])]
    alone, longer, nothing = token_scores(small_model(), requests)
    assert math.isnan(alone.logprobs[0])
    assert math.isnan(longer.logprobs[0])
    assert longer.logprobs[1] == pytest.approx(by_itself(small_model(), [4], [5])[0][0], abs=1e-5)
    assert nothing.logprobs == []


def test_an_unknown_id_is_refused() -> None:
    with pytest.raises(UserError, match="token id 50; this model's are 0 to 49"):
        token_scores(small_model(), [ScoreRequest([1], [50])])


@pytest.mark.parametrize("context", [[], [7], list(range(40))])
def test_a_text_longer_than_the_model_is_scored_in_windows(context: list[int]) -> None:
    model, draw = small_model(), random.Random(4)
    text = [draw.randrange(VOCABULARY) for _ in range(75)]
    (got,) = token_scores(model, [ScoreRequest(context, text)])
    wanted: list[float] = []
    for before, scored in rolling(text, context[-1:], MAX_SEQ_LEN):
        ahead = list(before) or [scored[0]]
        rest = list(scored) if before else list(scored[1:])
        wanted += ([] if before else [math.nan]) + by_itself(model, ahead, rest)[0]
    assert got.logprobs == pytest.approx(wanted, abs=2e-5, nan_ok=True)
    assert len(got.logprobs) == len(text)


def test_a_context_too_long_loses_its_beginning() -> None:
    assert fitting(range(40), [1, 2, 3], 32) == [(range(10, 40), [1, 2, 3])]
    assert fitting(range(5), [1], 32) == [(range(5), [1])]


@settings(deadline=None)  # the first call imports theirs
@given(st.integers(0, 200), st.integers(1, 40))
def test_windows_are_lm_evals(length: int, longest: int) -> None:
    """Its rolling rule, of which perplexities on WikiText are made."""
    utils = pytest.importorskip("lm_eval.utils", reason="pip install 'slm[eval]'")
    ids = list(range(100, 100 + length))
    theirs = map(utils.make_disjoint_window, utils.get_rolling_token_windows(ids, 7, longest, 1))
    ours = rolling(ids, [7], longest) if ids else []
    assert [(list(context), list(scored)) for context, scored in ours] == [tuple(map(list, pair)) for pair in theirs]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=20))
def test_a_tree_holds_every_sequence(sequences: list[list[int]]) -> None:
    """Each token sees the tokens of its own sequence, and no other."""
    trees = trees_of(sequences)
    assert sorted(index for tree in trees for index, _ in tree.paths) == list(range(len(sequences)))
    for tree in trees:
        for index, path in tree.paths:
            assert [tree.ids[place] for place in path] == sequences[index]
            last = path[-1]
            assert [place for place in range(len(tree.ids)) if place <= last < tree.ends[place]] == path
            assert [tree.depths[place] for place in path] == list(range(len(path)))


def test_the_model_need_not_be_trained_further_with_other_tables() -> None:
    """Scoring under `inference_mode` leaves nothing in the model that a gradient then refuses."""
    model = small_model(**SHAPES["rotary"])
    token_scores(cast(CausalLM, model), drawn_requests(random.Random(0)))
    model.train()(torch.tensor([[1, 2, 3]])).sum().backward()
