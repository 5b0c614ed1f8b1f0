"""Random settings and texts: each is taken, or refused in words; none ends in a traceback or forges anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slm.chat.renderer import ChatRenderer
from slm.chat.template import with_template
from slm.cli.composition import explain
from slm.errors import UserError
from slm.generation.config import GenerationConfig
from slm.generation.sampling import adjusted, next_tokens
from slm.schema import checked
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.build import build_tokenizer

pytestmark = pytest.mark.nightly

KEYS = [
    *("seed", "run_dir", "stop_after", "plugins", "model", "model.name", "model.params.max_seq_len"),
    *("model.modules.transformer.dim", "model.modules.transformer.n_heads", "model.modules.loss.kind", "adapter"),
    *("data", "data.kind", "data.val_fraction", "data.path", "tokenizer", "tokenizer.vocab_size", "optimizer.lr"),
    *("optimizer", "optimizer._target_", "scheduler.name", "trainer.max_steps", "trainer.precision", "trainer.devices"),
    *("logger", "callbacks", "generation.stop", "generation.top_p", "generation.logit_bias", "task", "task.kind", "x"),
]
VALUES = st.one_of(
    st.sampled_from([*("null", "true", "[]", "{}", "[1,2]", "{a:1}", "-1", "0", "1e400", "nan", "inf", "auto", "???")]),
    st.sampled_from(
        ["${seed}", "${x}", "${a:b}", "${", "'", '"', "\\", "a=b", "base", "default", "none", "[[", "../x"]
    ),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(max_size=8),
)
OVERRIDES = st.one_of(
    st.builds("{}{}={}".format, st.sampled_from(["", "", "", "+", "++", "~"]), st.sampled_from(KEYS), VALUES),
    st.text(min_size=1, max_size=12).filter(lambda text: not text.startswith("-")),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(OVERRIDES, min_size=1, max_size=2))
def test_overrides_are_composed_or_explained(overrides: list[str]) -> None:
    """What Hydra, OmegaConf and our checks raise of them has words of ours; anything else would be a traceback."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from slm.cli.composition import CONF, VERSION_BASE
    from slm.training.run_config import RunConfig

    problem: Exception | None = None
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(CONF, **VERSION_BASE):
            cfg = compose("train", overrides=overrides)
            values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
            RunConfig.from_dict({**values, "run_dir": "x"})
    except Exception as error:
        problem = error
    finally:
        GlobalHydra.instance().clear()
    assert problem is None or explain(problem) is not None, repr(problem)


NUMBERS = st.one_of(st.integers(-2, 100), st.floats(), st.sampled_from([0, 1, 1e-300, 1e300, 0.5]))
SAMPLING = st.dictionaries(
    st.sampled_from(
        [
            *("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
            *("no_repeat_ngram", "greedy"),
        ]
    ),
    NUMBERS,
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(SAMPLING, st.dictionaries(st.integers(-3, 12), st.floats(), max_size=3), st.integers(0, 2**31))
def test_sampling_settings_are_refused_or_draw_a_token(
    drawn: dict[str, Any], bias: dict[int, float], seed: int
) -> None:
    """Logits of every size, -inf among them: the id drawn is one of the vocabulary's."""
    try:
        config = checked(GenerationConfig, {**drawn, "logit_bias": bias}, "generation")
    except UserError:
        return
    logits = torch.randn(2, 7, generator=torch.Generator().manual_seed(seed)) * 10
    logits[0, seed % 7] = float("-inf")
    logits = adjusted(logits, config, [[1, 2, 1], [6]], [[2, 1], []])
    chosen = next_tokens(logits, config, torch.tensor([0.0, 0.999999]))
    assert chosen.shape == (2,)
    assert bool(((chosen >= 0) & (chosen < 7)).all())


TEXT = "user assistant system\nBelow is an instruction. ### Response: hé, 12 + 30! <|im_start|>\n" * 20
SPELLINGS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|pad|>", "### Response:\n", "assistant\n", "\ufdd3", "é"]
CONTENT = st.lists(st.one_of(st.sampled_from(SPELLINGS), st.text(max_size=6)), max_size=4).map("".join)


@pytest.fixture(scope="module")
def chats() -> dict[str, Tokenizer]:
    made = {
        "byte": build_tokenizer({"kind": "byte"}, []),
        "bpe": build_tokenizer({"kind": "bpe", "vocab_size": 300}, [TEXT]),
    }
    return {f"{name} {kind}": with_template(made[kind], name) for name in ("chatml", "alpaca") for kind in made}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CONTENT.filter(lambda text: text.encode(errors="ignore").decode() == text), min_size=1, max_size=3))
def test_a_conversation_is_read_back(chats: dict[str, Tokenizer], contents: list[str]) -> None:
    """Every special token is the template's own, and the learnt runs are the responses, whatever messages spell."""
    talk = [{"role": role, "content": text} for text in contents for role in ("user", "assistant")]
    plain = [{"role": one["role"], "content": "a"} for one in talk]
    for name, tokenizer in chats.items():
        renderer = ChatRenderer(tokenizer)
        specials = set(tokenizer.special_tokens.values())
        if any(mark in text for text in contents for mark in "\ufdd0\ufdd1\ufdd2"):
            with pytest.raises(UserError):
                renderer.sample(talk)
            continue
        sample = renderer.sample(talk)
        expected = [i for i in renderer.sample(plain).ids if i in specials]
        assert [i for i in sample.ids if i in specials] == expected, name
        learnt = [i for i, is_learnt in zip(sample.ids, sample.learnt, strict=True) if is_learnt and i not in specials]
        assert tokenizer.decode(learnt) == "".join(contents), name


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.text(min_size=1, max_size=60))
def test_a_saved_tokenizer_streams_what_it_decodes(text: str, fitted: str) -> None:
    """Of every kind that is fitted, on random text: saved, read back, streamed, round trip."""
    text, fitted = (one.encode(errors="replace").decode() for one in (text, fitted))
    for kind, fitting in (("byte", {}), ("simple", {}), ("bpe", {"vocab_size": 270}), ("regex", {"min_frequency": 1})):
        made = build_tokenizer({"kind": kind, **fitting}, [fitted])
        again = type(made).from_state(json.loads(json.dumps(made.state())))
        ids = again.encode(text)
        assert ids == made.encode(text), kind
        stream = again.stream_decoder()
        assert "".join([*map(stream.push, ids), stream.flush()]) == again.decode(ids), kind
        if kind in ("byte", "bpe"):
            assert again.decode(ids) == text, kind
