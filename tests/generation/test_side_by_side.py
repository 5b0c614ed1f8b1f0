"""Requests that come while others are written, each with its own settings: a text is still what it is alone."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
import torch
from test_engine import EOS, SHAPES, made, memory_that_nobody_wrote
from torch import nn

from slm.generation.config import GenerationConfig
from slm.generation.engine import Engine
from slm.generation.request import End, PromptRead, Request, Token

_ = memory_that_nobody_wrote

SETTINGS: list[dict[str, Any]] = [
    {"greedy": True},
    {"top_k": 40, "temperature": 1.5},
    {"top_p": 0.8, "temperature": 0.7, "logprobs": True},
    {"repetition_penalty": 1.3, "top_k": 40, "stop_at_eos": False},
    {"logit_bias": {3: 2.0}, "logprobs": True},
]


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    return {name: made(max_seq_len=1100, **shape) for name, shape in SHAPES.items()}


def written(events: list[Any]) -> dict[int, list[Any]]:
    """Of each index its tokens' ids, log-probabilities, and the reason of its end."""
    found: dict[int, list[Any]] = defaultdict(list)
    for event in events:
        if isinstance(event, Token):
            found[event.index].append((event.token_id, None if event.logprob is None else round(event.logprob, 3)))
        elif isinstance(event, End):
            found[event.index].append(event.reason)
    return found


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_whatever_comes_and_goes_beside_it(models: dict[str, nn.Module], name: str) -> None:
    """Requests of any length come at any step, some are stopped; the cache grows under rows that are in use."""
    model, draw = models[name], random.Random(5)
    engine = Engine(model, GenerationConfig(), EOS, vocab_size=256, alike=False)
    shapes = [(3, 12), (1, 30), (9, 9), (700, 5), (20, 8), (2, 600), (5, 20), (40, 4), (1, 1)]
    requests = []
    for seed, (n, budget) in enumerate(shapes):
        own = GenerationConfig(**draw.choice(SETTINGS))
        requests.append(Request([draw.randrange(256) for _ in range(n)], budget, seed, settings=own))
    texts, events, step = engine.begun(3, hurries=True), [], 0
    stopped = 5
    coming = list(enumerate(requests))
    while texts.busy or coming:
        if coming and step % 3 == 0:
            texts.waiting.append(engine.row(*coming.pop(0)))
        events += texts.step()
        step += 1
        if step == 40:
            texts.stop(stopped)
    found = written(events)
    for index, request in enumerate(requests):
        alone = written(list(engine.run([request])))[0]
        if index == stopped:
            *ids, reason = found[index]
            assert reason == "stop"
            assert ids == alone[: len(ids)]
            assert len(ids) < 40
        else:
            assert found[index] == alone, index
    assert texts._cache is None, "when nothing is written nothing is held"


def test_a_free_row_is_taken_within_two_steps(models: dict[str, nn.Module]) -> None:
    """Although several waiting prompts would be read faster together."""
    engine = Engine(models["rotary"], GenerationConfig(greedy=True, stop_at_eos=False), EOS, vocab_size=256)
    texts = engine.begun(8, hurries=True)
    texts.waiting.extend(engine.row(i, Request([1], 40 + 5 * i)) for i in range(8))
    texts.waiting.extend(engine.row(i, Request([1], 20)) for i in range(8, 20))
    began: dict[int, int] = {}
    freed: list[int] = []
    for step in range(200):
        if not texts.busy:
            break
        for event in texts.step():
            if isinstance(event, Token) and event.index not in began:
                began[event.index] = step
            if isinstance(event, End):
                freed.append(step)
    later = sorted(step for index, step in began.items() if index >= 8)
    assert len(later) == 12
    for came, free in zip(later, sorted(freed), strict=False):
        assert came - free <= 2


def test_one_that_waits_can_be_stopped_before_it_begins(models: dict[str, nn.Module]) -> None:
    engine = Engine(models["rotary"], GenerationConfig(greedy=True), EOS, vocab_size=256)
    texts = engine.begun(1)
    texts.waiting.extend(engine.row(i, Request([1], 5)) for i in range(2))
    texts.step()
    texts.stop(1)
    assert End(1, "stop") in texts.step()
    while texts.busy:
        assert all(event.index == 0 for event in texts.step())


def test_what_is_found_of_a_prompt(models: dict[str, nn.Module]) -> None:
    """By one pass over the whole, in prompts that are read beside longer ones, and longer than what is held at once."""
    for model in models.values():
        engine = Engine(model, GenerationConfig(logprobs=True), EOS, vocab_size=256)
        prompts = [[(7 * i + n) % 256 for i in range(n)] for n in (1, 5, 6, 700)]
        asked = [(prompt, n_new) for prompt in prompts for n_new in (0, 1)]
        requests = [Request(*one, seed=0, alternatives=2, prompt_logprobs=True) for one in asked]
        events = list(engine.run(requests))
        reads = {event.index: event for event in events if isinstance(event, PromptRead)}
        assert {event.index: event.reason for event in events if isinstance(event, End)}.keys() == set(range(8))
        assert {event.index for event in events if isinstance(event, Token)} <= {1, 3, 5, 7}
        for index, request in enumerate(requests):
            ids = torch.tensor([request.prompt_ids])
            with torch.inference_mode():
                of_model = model(ids).log_softmax(-1)[0, :-1]
            expected = of_model.gather(-1, ids[0, 1:, None])[:, 0]
            first, *rest = reads[index].logprobs
            assert first is None
            torch.testing.assert_close(torch.tensor(rest), expected, rtol=1e-4, atol=1e-4)
            best = of_model[:, :256].topk(2, dim=-1).values
            told = [[logprob for _, logprob in others] for others in reads[index].alternatives[1:]]
            torch.testing.assert_close(torch.tensor(told).reshape(-1, 2), best, rtol=1e-4, atol=1e-4)
