"""What was read once is not read again, and the texts are what they would be."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from test_engine import EOS, made
from torch import nn

from slm.generation.config import GenerationConfig
from slm.generation.engine import Engine
from slm.generation.prefixes import Prefixes
from slm.generation.request import Request, Token


def of(n: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(1, 256) for _ in range(n)]


def block(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of n tokens: 64 n bytes."""
    return torch.zeros(2, 1, n, 4), torch.zeros(2, 1, n, 4)


def test_the_longest_beginning_is_found() -> None:
    prefixes, text = Prefixes(), of(100, 1)
    prefixes.keep(text, *block(100))
    prefixes.keep([*text[:50], *of(60, 2)], *block(110))
    assert prefixes.of(of(100, 3)) is None
    assert prefixes.of(text[:20]) is None, "so few are read as quickly"
    for prompt, n in ((text, 99), ([*text, 1], 100), ([*text[:50], *of(60, 2), 5, 6], 110), ([*text[:70], 0], 70)):
        found = prefixes.of(prompt)
        assert found is not None
        assert len(found) == found.values.shape[2] == n


def test_what_was_not_used_for_longest_goes() -> None:
    prefixes = Prefixes(most_bytes=64 * 250)
    texts = [of(100, seed) for seed in range(3)]
    for text in texts[:2]:
        prefixes.keep(text, *block(100))
    assert prefixes.of(texts[0]) is not None
    prefixes.keep(texts[2], *block(100))
    assert [prefixes.of(text) is not None for text in texts] == [True, False, True]
    prefixes.keep(of(300, 9), *block(300))  # larger than all there is room for
    assert prefixes.of(texts[0]) is not None


def test_a_text_that_goes_on_takes_the_place_of_its_beginning() -> None:
    prefixes, text = Prefixes(most_bytes=64 * 200), of(150, 1)
    for n in (50, 100, 150, 120):
        prefixes.keep(text[:n], *block(n))
    assert [len(one.ids) for one in prefixes._texts] == [150]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return made(max_seq_len=600, position="rotary")


def turns(engine: Engine, seed: int) -> list[list[int]]:
    """A talk of four turns of 60 tokens and 20 drawn ones each: what was drawn."""
    ids: list[int] = []
    drawn = []
    for turn in range(4):
        ids += of(60, 10 * seed + turn)
        events = list(engine.run([Request(ids, 20, seed=seed + turn)]))
        drawn.append([event.token_id for event in events if isinstance(event, Token)])
        ids += drawn[-1]
    return drawn


def test_a_talk_is_what_it_is_without(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of each turn but the first only the new is read."""
    settings = GenerationConfig(stop_at_eos=False)
    plain = [turns(Engine(model, settings, EOS, 256), seed) for seed in range(3)]
    read, hidden_states = [], model.hidden_states

    def noted(ids: torch.Tensor, *others: Any) -> torch.Tensor:
        if ids.shape[1] > 1:
            read.append(ids.shape[1])
        return hidden_states(ids, *others)

    monkeypatch.setattr(model, "hidden_states", noted)
    prefixes = Prefixes()
    assert [turns(Engine(model, settings, EOS, 256, prefixes=prefixes), seed) for seed in range(3)] == plain
    assert read == [60, 61, 61, 61] * 3  # the token drawn last was never read


def test_rows_with_and_without_a_beginning_side_by_side(model: Any) -> None:
    settings = GenerationConfig(stop_at_eos=False, batch_size=6)
    first, prefixes = of(80, 1), Prefixes()
    list(Engine(model, settings, EOS, 256, prefixes=prefixes).run([Request(first, 5, 0)]))
    prompts = [of(40, 2), [*first, *of(30, 3)], of(45, 4), [*first[:50], *of(9, 5)], first]
    requests = [Request(prompt, 12, seed) for seed, prompt in enumerate(prompts)]

    def written(**more: Any) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for event in Engine(model, settings, EOS, 256, **more).run(requests):
            if isinstance(event, Token):
                found.setdefault(event.index, []).append(event.token_id)
        return found

    assert written(prefixes=prefixes) == written()
