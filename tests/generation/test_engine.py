"""Many texts side by side: each is what it would be alone, whatever comes and goes beside it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slm.errors import UserError
from slm.generation.completion import StopStrings
from slm.generation.config import GenerationConfig
from slm.generation.engine import Engine
from slm.generation.language_model import LanguageModel
from slm.generation.request import End, Request, Token
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.models.modules.embeddings import RotaryPositions
from slm.tokenizers.byte import ByteTokenizer

MAX_SEQ_LEN, EOS = 32, ByteTokenizer.eos_id
SHAPES: dict[str, dict[str, Any]] = {
    "learned": {},
    "rotary": {"position": "rotary", "n_kv_heads": 1, "norm": "rms_norm", "mlp": "glu", "qk_norm": True},
    "sliding": {"position": "rotary", "sliding_window": 5},
    "none": {"position": "none"},
}


def made(position: str = "learned", max_seq_len: int = MAX_SEQ_LEN, **transformer: Any) -> nn.Module:
    config = ModelConfig.from_dict(
        {
            "name": "gpt",
            "params": {"max_seq_len": max_seq_len, "vocab_size": 258},
            "modules": {
                "position_embedding": {"kind": position},
                "transformer": {"dim": 16, "n_layers": 2, "n_heads": 2, **transformer},
            },
        }
    )
    model = build_model(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model.eval()


@pytest.fixture(scope="module", autouse=True)
def memory_that_nobody_wrote() -> Iterator[None]:
    """What `torch.empty` gives holds nan here, as it may anywhere: what a mask hides must not show."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    return {name: made(**shape) for name, shape in SHAPES.items()}


def texts_of(model: nn.Module, config: GenerationConfig, requests: list[Request], eos: int = EOS) -> list[Any]:
    """(token ids, reason) of each request."""
    ids: list[list[int]] = [[] for _ in requests]
    reasons: list[Any] = [None] * len(requests)
    for event in Engine(model, config, eos).run(requests):
        assert reasons[event.index] is None, "nothing comes after the end"
        if isinstance(event, Token):
            ids[event.index].append(event.token_id)
        else:
            reasons[event.index] = event.reason
    return list(zip(ids, reasons, strict=True))


requests_of = st.lists(
    st.builds(
        Request,
        st.lists(st.integers(0, 255), max_size=20),
        st.integers(1, 14),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=9,
)


@given(data=st.data(), requests=requests_of, rows=st.integers(1, 5), greedy=st.booleans())
@settings(max_examples=60, deadline=None)
def test_each_text_is_what_it_is_alone(
    models: dict[str, nn.Module], data: st.DataObject, requests: list[Request], rows: int, greedy: bool
) -> None:
    """Mixed lengths, budgets and seeds, an end of text that comes by chance, fewer rows than prompts."""
    model = models[data.draw(st.sampled_from(sorted(SHAPES)))]
    eos = data.draw(st.integers(0, 255))
    penalties = data.draw(st.sampled_from([{}, {"repetition_penalty": 1.3, "frequency_penalty": 0.2}]))
    config = GenerationConfig(greedy=greedy, batch_size=rows, top_k=40, **penalties)
    together = texts_of(model, config, requests, eos)
    assert together == [texts_of(model, config, [request], eos)[0] for request in requests]


def test_greedy_texts_are_the_argmax_of_the_whole_each_time(models: dict[str, nn.Module]) -> None:
    for model in models.values():
        requests = [Request([7] * n, 6) for n in (1, 3, 12, 5)]
        config = GenerationConfig(greedy=True, stop_at_eos=False, batch_size=3)
        for (ids, reason), request in zip(texts_of(model, config, requests), requests, strict=True):
            whole = list(request.prompt_ids)
            for token in ids:
                with torch.no_grad():
                    assert token == int(model(torch.tensor([whole]))[0, -1].argmax())
                whole.append(token)
            assert (len(ids), reason) == (6, "length")


def test_why_a_text_ended(models: dict[str, nn.Module]) -> None:
    config = GenerationConfig(greedy=True, stop_at_eos=False)
    (ids, reason), (short, at_length) = texts_of(models["learned"], config, [Request([1] * 30, 9), Request([1], 2)])
    assert (len(ids), reason) == (2, "max_seq_len")
    assert (len(short), at_length) == (2, "length")
    first = texts_of(models["learned"], GenerationConfig(greedy=True), [Request([1], 3)], eos=short[0])
    assert first == [([], "eos")]


def test_any_of_several_ids_ends_a_text(models: dict[str, nn.Module]) -> None:
    """A chat model that ends its turns with a token of their own ran on into the next turn."""
    greedy = GenerationConfig(greedy=True)
    ids = texts_of(models["learned"], greedy, [Request([1], 6)])[0][0]
    turn = next(i for i in ids if i != ids[0])
    events = list(Engine(models["learned"], greedy, EOS, end_ids=(turn,)).run([Request([1], 6)]))
    assert [event.token_id for event in events[:-1] if isinstance(event, Token)] == ids[: ids.index(turn)]
    assert events[-1] == End(0, "eos")
    endless = GenerationConfig(greedy=True, stop_at_eos=False)
    tokens = list(Engine(models["learned"], endless, EOS, end_ids=(turn,)).run([Request([1], 6)]))[:-1]
    assert len(tokens) == 6


def test_a_prompt_without_room_is_refused_before_anything_is_written(models: dict[str, nn.Module]) -> None:
    requests = [Request([1], 3), Request([1] * MAX_SEQ_LEN, 3)]
    with pytest.raises(UserError, match=f"{MAX_SEQ_LEN} tokens"):
        next(Engine(models["learned"], GenerationConfig(), EOS).run(requests))


def test_sliding_goes_on_past_the_models_length(models: dict[str, nn.Module]) -> None:
    """While nothing is forgotten the text is the plain one; after, each token follows from the positions kept."""
    plain = GenerationConfig(greedy=True, stop_at_eos=False)
    slide = GenerationConfig(greedy=True, stop_at_eos=False, overflow="slide")
    for name in ("rotary", "none"):
        model = models[name]
        requests = [Request([5] * 20, 70), Request([9] * 3, 50), Request([2] * 60, 40)]
        texts = texts_of(model, slide, requests)
        assert [(len(ids), reason) for ids, reason in texts] == [(70, "length"), (50, "length"), (40, "length")]
        assert texts[0][0][:12] == texts_of(model, plain, [Request([5] * 20, 12)])[0][0]
        alone = [texts_of(model, slide, [request])[0] for request in requests]
        assert alone == texts
    # one layer, so that keys depend on their own token alone: after forgetting 16 of 32, 17 are seen, and so on
    model = made(position="rotary", n_layers=1)
    ((ids, _),) = texts_of(model, slide, [Request([5] * 31, 6)])
    whole = [5] * 31 + ids
    for n in range(32, 36):
        with torch.no_grad():
            assert whole[n + 1] == int(model(torch.tensor([whole[16 : n + 1]]))[0, -1].argmax())
    with pytest.raises(UserError, match="overflow=slide needs rotary positions"):
        Engine(models["learned"], slide, EOS)


def test_a_budget_that_is_not_used_costs_nothing() -> None:
    """Rows were cleared up to their budget, and their random numbers drawn: 38 s and 13 GB before the first token."""
    model = made(max_seq_len=20_000, position="rotary")
    config = GenerationConfig(stop_at_eos=False)
    engine = Engine(model, config, EOS)
    room = []
    make_cache = model.make_cache
    model.make_cache = lambda *shape: room.append(make_cache(*shape)) or room[0]  # type: ignore[assignment]
    run = engine.run([Request([1] * n, 10_000, n) for n in (3, 5, 9)])
    before = [event.token_id for event in itertools.islice(run, 30) if isinstance(event, Token)]
    (cache,) = room
    assert cache.max_len > 10_000
    assert cache.keys[..., 1000:, :].isnan().all(), "nobody touched what nobody looked at"
    assert len(engine._texts.rows[0]._uniforms) < 1000
    short = Engine(model, config, EOS).run([Request([1] * n, 10, n) for n in (3, 5, 9)])
    assert before == [event.token_id for event in short if isinstance(event, Token)], "a seed is one of any budget"


def test_rotary_tables_outlive_generation_and_are_few() -> None:
    """The table was made in inference mode, so that training after a sample ended in an error; and a text that slid
    past `max_seq_len` made a new one for each token."""
    model = made(position="rotary")
    with mock.patch.object(RotaryPositions, "_table", autospec=True, side_effect=RotaryPositions._table) as table:
        config = GenerationConfig(greedy=True, stop_at_eos=False, overflow="slide")
        assert len(texts_of(model, config, [Request([5], 300)])[0][0]) == 300
    assert table.call_count < 10
    model(torch.tensor([[1, 2, 3]])).sum().backward()


def test_long_prompts_are_not_read_all_at_once() -> None:
    """Sixteen of 8,000 tokens went through the widest layers together, gigabytes of activations."""
    model = made(max_seq_len=5000, n_layers=1)
    with mock.patch.object(model, "hidden_states", wraps=model.hidden_states) as read:
        texts_of(model, GenerationConfig(greedy=True), [Request([1] * 3000, 1) for _ in range(5)])
    assert [tuple(call.args[0].shape) for call in read.call_args_list] == [(2, 3000), (2, 3000), (1, 3000)]


def test_a_stream_left_half_way_leaves_nothing_behind(models: dict[str, nn.Module]) -> None:
    engine = Engine(models["learned"], GenerationConfig(greedy=True, stop_at_eos=False), EOS)
    whole = list(engine.run([Request([1], 5)]))
    left = engine.run([Request([2], 9), Request([3], 9)])
    next(left)
    assert not torch.is_inference_mode_enabled()
    left.close()
    assert list(engine.run([Request([1], 5)])) == whole


# ---- text ----


@given(
    text=st.text("abX", max_size=30),
    stop=st.lists(st.text("abX", min_size=1, max_size=4), min_size=1, max_size=3),
    cuts=st.sets(st.integers(0, 30)),
)
def test_a_text_ends_before_the_first_stop_string_wherever_it_is_cut(
    text: str, stop: list[str], cuts: set[int]
) -> None:
    places = [place for s in stop if (place := text.find(s)) >= 0]
    stopper = StopStrings(stop)
    out = ""
    bounds = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    for a, b in itertools.pairwise(bounds):
        out += stopper.push(text[a:b])
        if stopper.found:
            break
    found = stopper.found
    out += stopper.flush()
    if not places:
        assert (out, found) == (text, False)
    else:
        assert found
        assert text.startswith(out)
        assert not any(s in out for s in stop)
        assert len(out) >= min(places) - 3, "no more is cut off than a stop string that overlaps an earlier one"


@pytest.fixture
def lm(models: dict[str, nn.Module]) -> LanguageModel:
    return LanguageModel(models["rotary"], ByteTokenizer(), facts={})  # type: ignore[arg-type]


def test_completions_account_for_themselves(lm: LanguageModel) -> None:
    """In the prompts' order, n of each, and equal to each alone."""
    prompts = ["a", "bcd", "", "efghij" * 3]
    config = GenerationConfig(max_new_tokens=8, seed=5, n=3, logprobs=True, batch_size=4)
    answers = lm.complete(prompts, config)
    assert [len(one) for one in answers] == [3] * 4
    for prompt, completions in zip(prompts, answers, strict=True):
        assert len({one.text for one in completions}) > 1, "each has a seed of its own"
        for sample, one in enumerate(completions):
            ((alone,),) = lm.complete([prompt], config, n=1, seed=5 + sample)
            assert (one.text, one.ids, one.finish_reason) == (alone.text, alone.ids, alone.finish_reason)
            assert one.prompt_tokens == len(prompt)
            assert one.logprobs is not None
            assert len(one.logprobs) == one.new_tokens == len(one.ids) <= 8
            assert 0 <= one.seconds_to_first_token <= one.seconds
            whole = torch.tensor([[*(lm.tokenizer.encode(prompt) or [EOS]), *one.ids]])
            with torch.no_grad():
                of_model = lm.model(whole).log_softmax(-1)[0, -len(one.ids) - 1 : -1]
            expected = of_model[range(len(one.ids)), one.ids]
            torch.testing.assert_close(torch.tensor(one.logprobs), expected, rtol=1e-4, atol=1e-4)


def test_a_stop_string_ends_the_text_before_it(lm: LanguageModel) -> None:
    whole = lm.generate("H", greedy=True, max_new_tokens=20, stop_at_eos=False)
    stop = whole[7:10]
    ((one,),) = lm.complete(["H"], greedy=True, max_new_tokens=20, stop_at_eos=False, stop=[stop])
    assert one.text == whole[: whole.index(stop)]
    assert one.finish_reason == "stop"
    assert "".join(lm.stream("H", greedy=True, max_new_tokens=20, stop_at_eos=False, stop=[stop])) == one.text


def test_events_end_with_one_end_each(lm: LanguageModel) -> None:
    events = list(Engine(lm.model, GenerationConfig(max_new_tokens=3), EOS).run([Request([1], 3), Request([2], 3)]))
    assert sum(isinstance(event, End) for event in events) == 2
    assert list(Engine(lm.model, GenerationConfig(), EOS).run([])) == []
