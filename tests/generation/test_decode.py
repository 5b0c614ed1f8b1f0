"""The decode loop and the text around it, on a model with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import slm
from slm.errors import UserError
from slm.generation.config import GenerationConfig
from slm.generation.engine import Engine
from slm.generation.language_model import LanguageModel
from slm.generation.request import Request, Token
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.tokenizers.byte import ByteTokenizer
from slm.weights.bundle import write_bundle
from slm.weights.open_model import find_bundle

MAX_SEQ_LEN = 40
EOS = ByteTokenizer.eos_id


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    """With more ids than the tokenizer, and weights so large that its text wanders."""
    config = ModelConfig.from_dict(
        {
            "name": "gpt",
            "params": {"max_seq_len": MAX_SEQ_LEN, "vocab_size": 300},
            "modules": {"transformer": {"dim": 16, "n_layers": 2, "n_heads": 2, "activation": "gelu_tanh"}},
        }
    )
    model = build_model(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model.eval()


@pytest.fixture
def lm(model: torch.nn.Module) -> LanguageModel:
    return LanguageModel(model, ByteTokenizer(), facts={})


def generate_ids(
    model: Any, prompt: list[int], settings: GenerationConfig, eos: int, vocab_size: int | None = None
) -> list[int]:
    events = Engine(model, settings, eos, vocab_size).run([Request(prompt, settings.max_new_tokens, settings.seed)])
    return [event.token_id for event in events if isinstance(event, Token)]


def uncached_greedy(model: torch.nn.Module, prompt: list[int], n_new: int) -> list[int]:
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(n_new):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def greedy(**changes: object) -> GenerationConfig:
    return GenerationConfig(greedy=True, **{"stop_at_eos": False, **changes})


def test_greedy_is_the_argmax_of_the_whole_text_each_time(model: torch.nn.Module) -> None:
    """Through the cache as without one; up to the model's length and no further; an empty prompt is a text's start."""
    for prompt in ([72, 105], [1] * (MAX_SEQ_LEN - 1), []):
        room = MAX_SEQ_LEN - max(1, len(prompt))
        expected = uncached_greedy(model, prompt or [EOS], room)
        assert len(set(expected)) > min(3, room - 1), "the text should wander"
        assert generate_ids(model, prompt, greedy(max_new_tokens=1000), EOS) == expected
        assert generate_ids(model, prompt, greedy(max_new_tokens=5), EOS) == expected[:5]


def test_ends_before_end_of_text(model: torch.nn.Module) -> None:
    """Whichever token that is: it is not given out, and nothing after it."""
    ids = uncached_greedy(model, [72], 20)
    eos = ids[7]
    assert generate_ids(model, [72], greedy(stop_at_eos=True), eos) == ids[: ids.index(eos)]
    assert generate_ids(model, [72], greedy(max_new_tokens=20), eos) == ids


def test_a_prompt_without_room_is_refused(model: torch.nn.Module) -> None:
    with pytest.raises(UserError, match=f"{MAX_SEQ_LEN} tokens.*to {MAX_SEQ_LEN - 1}"):
        generate_ids(model, [1] * MAX_SEQ_LEN, greedy(), EOS)


def test_a_seed_repeats_a_text_and_leaves_other_random_numbers_alone(model: torch.nn.Module) -> None:
    def text(seed: int) -> list[int]:
        return generate_ids(model, [72], GenerationConfig(seed=seed, stop_at_eos=False), EOS)

    state = torch.random.get_rng_state()
    assert text(1) == text(1)
    assert text(1) != text(2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_ids_that_the_tokenizer_has_not_never_come(model: torch.nn.Module, lm: LanguageModel) -> None:
    """`model.params.vocab_size` may be above the tokenizer's; such an id ended the program when it was decoded."""
    settings = GenerationConfig(temperature=100.0, seed=0, stop_at_eos=False)
    assert max(generate_ids(model, [72], settings, EOS)) >= 258
    assert max(generate_ids(model, [72], settings, EOS, vocab_size=258)) < 258
    lm.generate("H", settings)


def test_streamed_pieces_join_to_the_text(lm: LanguageModel) -> None:
    """Random bytes break UTF-8 all the time; a piece never ends in half a character that later comes whole."""
    for seed in range(3):
        settings = GenerationConfig(max_new_tokens=30, temperature=3.0, seed=seed)
        ids = generate_ids(lm.model, lm.tokenizer.encode("Zoë"), settings, EOS, 258)
        assert "".join(lm.stream("Zoë", settings)) == lm.generate("Zoë", settings) == lm.tokenizer.decode(ids)


def test_single_settings_change_those_given_and_are_checked(lm: LanguageModel) -> None:
    """A temperature of 0 divided by zero and wrote whatever came of it."""
    base = GenerationConfig(max_new_tokens=9, seed=1)
    assert lm.generate("H", base, greedy=True) == lm.generate("H", max_new_tokens=9, greedy=True)
    with pytest.raises(UserError, match=r"temperature.*greater than 0") as caught:
        lm.generate("H", temperature=0, max_tokens=3)
    assert "did you mean 'max_new_tokens'?" in str(caught.value)
    with pytest.raises(UserError, match="top_p must be above 0"):
        lm.generate("H", top_p=0.0)


def test_a_run_folder_or_a_bundle_loads(model: torch.nn.Module, lm: LanguageModel, tmp_path: Path) -> None:
    """`slm.load` takes either; each way to be wrong is told apart."""
    run = tmp_path / "run"
    write_bundle(run / "model", model.config, model.state_dict(), lm.tokenizer, {"step": 3})
    for path in (run, str(run / "model")):
        loaded = slm.load(path, device="cpu")
        assert loaded.generate("H", greedy=True) == lm.generate("H", greedy=True)
        assert loaded.facts == {"step": 3}
    (tmp_path / "young" / "checkpoints").mkdir(parents=True)
    for path, said in [("none", "no folder"), ("young", "holds no model"), (".", "neither a run folder nor")]:
        with pytest.raises(UserError, match=said):
            find_bundle(tmp_path / path)
