"""The step of fixed shapes that a GPU replays, run here operation by operation; the recording itself needs a GPU."""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine import EOS, SHAPES, made, memory_that_nobody_wrote, requests_of
from torch import nn

from slm.generation.config import GenerationConfig
from slm.generation.engine import Engine
from slm.generation.graphed_step import GraphedStep, GraphedSteps
from slm.generation.request import Request, Token
from slm.models.modules.embeddings import RotaryPositions

_ = memory_that_nobody_wrote

DRAWS: list[dict[str, Any]] = [
    {"greedy": True},
    {"top_k": 40},
    {"top_p": 0.8, "temperature": 0.7},
    {"min_p": 0.05, "logprobs": True},
    {"repetition_penalty": 1.3, "top_k": 40},
    {"logit_bias": {3: float("-inf")}},
]


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    return {name: made(**shape) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def steps(models: dict[str, nn.Module]) -> dict[str, GraphedSteps]:
    """Of one model each, used again from batch to batch."""
    return {name: GraphedSteps() for name in models}


def events_of(model: nn.Module, config: GenerationConfig, requests: list[Request], **more: Any) -> list[Any]:
    return [
        (event.index, event.token_id) if isinstance(event, Token) else event
        for event in Engine(model, config, vocab_size=256, **more).run(requests)  # type: ignore[arg-type]
    ]


@given(data=st.data(), requests=requests_of, rows=st.integers(1, 5), draw=st.sampled_from(DRAWS))
@settings(max_examples=50, deadline=None)
def test_texts_are_those_of_plain_decoding(
    models: dict[str, nn.Module],
    steps: dict[str, GraphedSteps],
    data: st.DataObject,
    requests: list[Request],
    rows: int,
    draw: dict[str, Any],
) -> None:
    """Whatever stood in the rows before: the steps are those of the batches that came earlier."""
    name = data.draw(st.sampled_from(sorted(SHAPES)))
    eos = data.draw(st.integers(0, 255))
    config = GenerationConfig(batch_size=rows, **draw)
    with mock.patch.object(GraphedStep, "__call__", autospec=True, side_effect=GraphedStep.__call__) as call:
        found = events_of(models[name], config, requests, eos_id=eos, steps=steps[name])
    assert found == events_of(models[name], config, requests, eos_id=eos)
    assert call.called or all(request.max_new_tokens == 1 for request in requests) or len(found) < 2 * len(requests) + 1
    assert len(steps[name]._steps) <= 2


def test_what_a_step_reads_is_kept_and_weights_that_moved_make_a_new_one() -> None:
    """A graph knows addresses: a rotary table that grew, or a model cast to another dtype, left it reading freed
    memory."""
    model = made(position="rotary")
    steps = GraphedSteps()
    greedy = GenerationConfig(greedy=True, stop_at_eos=False)
    requests = [Request([1, 2], 6)]
    events_of(model, greedy, requests, eos_id=EOS, steps=steps)
    (first,) = steps._steps.values()
    kept = {tensor.data_ptr() for tensor in first._read}
    assert isinstance(model.position_embedding, RotaryPositions)
    table = next(iter(model.position_embedding._tables.values()))
    assert {w.data_ptr() for w in (*model.parameters(), *table)} <= kept
    events_of(model, greedy, requests, eos_id=EOS, steps=steps)
    assert list(steps._steps.values()) == [first]
    model.double()
    assert events_of(model, greedy, requests, eos_id=EOS, steps=steps) == events_of(model, greedy, requests, eos_id=EOS)
    (second,) = steps._steps.values()
    assert second is not first
    assert copy.deepcopy(steps)._steps == {}


def test_a_step_at_work_is_not_given_to_another(models: dict[str, nn.Module]) -> None:
    """Two streams of one model, token by token in turns, wrote into the same rows."""
    config = GenerationConfig(greedy=True, stop_at_eos=False)
    steps = GraphedSteps()
    plain = [events_of(models["rotary"], config, [Request([i], 9)], eos_id=EOS) for i in (1, 2)]
    engines = [Engine(models["rotary"], config, EOS, 256, steps=steps) for _ in range(2)]  # type: ignore[arg-type]
    runs = [engine.run([Request([i], 9)]) for engine, i in zip(engines, (1, 2), strict=True)]
    for first, second in zip(*runs, strict=True):
        for event, expected in ((first, plain[0]), (second, plain[1])):
            got = (event.index, event.token_id) if isinstance(event, Token) else event
            assert got == expected.pop(0)
    (step,) = steps._steps.values()
    assert not step.lock.locked()


def test_a_model_that_cannot_be_recorded_says_so_once_and_writes(
    models: dict[str, nn.Module], capsys: pytest.CaptureFixture[str]
) -> None:
    config = GenerationConfig(greedy=True, stop_at_eos=False)
    plain = events_of(models["learned"], config, [Request([1], 9)], eos_id=EOS)
    steps = GraphedSteps()
    with mock.patch("slm.generation.graphed_step._recorded", side_effect=RuntimeError("operation not permitted\nat")):
        for _ in range(2):
            assert events_of(models["learned"], config, [Request([1], 9)], eos_id=EOS, steps=steps) == plain
    said = capsys.readouterr().err
    assert said == "decoding without a CUDA graph: RuntimeError: operation not permitted\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_replays_what_the_operations_do() -> None:
    for shape in SHAPES.values():
        model = made(**shape).cuda()
        steps = GraphedSteps()
        for draw in DRAWS:
            config = GenerationConfig(batch_size=3, stop_at_eos=False, **draw)
            requests = [Request([7] * n, 9, n) for n in (1, 3, 12, 5)]
            plain = events_of(model, config, requests, eos_id=EOS)
            assert events_of(model, config, requests, eos_id=EOS, steps=steps) == plain
        assert steps._steps, "no graph was recorded"
