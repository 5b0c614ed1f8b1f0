"""A template that rewrites what was said: each response is learnt behind what the model reads when it writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slm.chat.renderer import ChatRenderer, Sample
from slm.data.batches.samples import make_samples
from slm.errors import UserError
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.extended import ExtendedTokenizer
from slm.tokenizers.hf_gpt2 import HfGpt2Tokenizer

CASES = Path(__file__).parents[3] / "shared" / "cases"
# as Qwen3's: thoughts are of the last answer alone
THINKING = (
    "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' and loop.last %}<{{ m.reasoning_content }}>"
    "{% endif %}{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant:"
    "{% if enable_thinking is defined and not enable_thinking %}<>{% endif %}{% endif %}"
)
MARKED = THINKING.replace("<{{ m.reas", "{% generation %}<{{ m.reas").replace(
    "{% endif %}{{ m.content }}{{ eos_token }}",
    "{{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}{{ eos_token }}{% endif %}",
)
SAME = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def talk(*answers: str) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    for number, answer in enumerate(answers):
        turns += [{"role": "user", "content": f"q{number}"}]
        turns += [{"role": "assistant", "content": answer, "reasoning_content": f"t{number}"}]
    return turns


def tokenizer_with(template: str, **args: Any) -> ExtendedTokenizer:
    return ExtendedTokenizer(ByteTokenizer(), [], template, template_args=args)


def shown(sample: Sample) -> tuple[str, str]:
    """What is not learnt, and what is, with a | for each end."""
    texts = {False: "", True: ""}
    for token_id, learnt in zip(sample.ids, sample.learnt, strict=True):
        texts[learnt] += "|" if token_id == ByteTokenizer.eos_id else chr(token_id)
    return texts[False], texts[True]


@pytest.mark.parametrize("template", [THINKING, MARKED])
def test_each_response_is_learnt_as_it_is_given(template: str) -> None:
    """Two turns were refused ("writes message 2 otherwise")."""
    renderer = ChatRenderer(tokenizer_with(template))
    messages = talk("a", "b", "c")
    samples = renderer.samples(messages)
    assert list(map(shown, samples)) == [
        ("user:q0|assistant:", "<t0>a|"),
        ("user:q0|assistant:a|user:q1|assistant:", "<t1>b|"),
        ("user:q0|assistant:a|user:q1|assistant:b|user:q2|assistant:", "<t2>c|"),
    ]
    for turn, sample in enumerate(samples):
        asked = renderer.prompt_ids(messages[: 2 * turn + 1])
        assert sample.ids[: len(asked)] == asked
        assert sample.learnt == [False] * len(asked) + [True] * (len(sample.ids) - len(asked))
    assert renderer.sample(messages) == samples[-1]
    assert renderer.response(messages) == "<t2>c"


def test_what_stands_unchanged_shares_a_sample() -> None:
    """All of it under most templates; here two answers to one question (a tool's result between them) of three."""
    assert [shown(s)[1] for s in ChatRenderer(tokenizer_with(SAME)).samples(talk("a", "b", "c"))] == ["a|b|c|"]
    forgets = (
        "{% set n = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set n.last = loop.index0 %}"
        "{% endif %}{% endfor %}{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' and "
        "loop.index0 > n.last %}<{{ m.reasoning_content }}>{% endif %}{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    tool = {"role": "tool", "content": "r"}
    messages = [*talk("a"), tool, *talk("b")[1:], *talk("c")]
    assert list(map(shown, ChatRenderer(tokenizer_with(forgets)).samples(messages))) == [
        ("user:q0|assistant:tool:r|assistant:", "<t0>a|<t0>b|"),
        ("user:q0|assistant:a|tool:r|assistant:b|user:q0|assistant:", "<t0>c|"),
    ]
    asked_last = ChatRenderer(tokenizer_with(THINKING)).samples([*talk("a"), {"role": "user", "content": "?"}])
    assert list(map(shown, asked_last)) == [("user:q0|assistant:", "<t0>a|")]


def test_a_response_of_weight_0_is_not_learnt() -> None:
    first, answer, *later = talk("a", "b")
    for template, learnt in ((SAME, ["b|"]), (THINKING, ["<t1>b|"]), (MARKED, ["<t1>b|"])):
        samples = ChatRenderer(tokenizer_with(template)).samples([first, answer | {"weight": 0}, *later])
        assert [shown(sample)[1] for sample in samples] == learnt


def test_samples_are_counted_beside_conversations() -> None:
    renderer = ChatRenderer(tokenizer_with(THINKING))
    made = make_samples([talk("a", "b"), talk("c")], renderer, 100, "drop", "responses")
    assert (made.kept, len(made)) == ([0, 0, 1], 3)
    assert (made.report()["conversations"], made.report()["samples"]) == (2, 3)
    everything = make_samples([talk("a", "b")], renderer, 100, "drop", "all")
    assert (len(everything), everything.learnt.all()) == (1, True)


def test_what_the_template_is_given_is_in_every_text() -> None:
    """With thoughts switched off a prompt ends with empty ones, and answers that have some do not follow it."""
    quiet = ChatRenderer(tokenizer_with(THINKING, enable_thinking=False))
    messages = talk("a")
    with pytest.raises(UserError, match=r"message 2 otherwise.*'t0>a.*task\.template_args.*generation %}"):
        quiet.samples(messages)
    messages[1]["reasoning_content"] = ""
    assert shown(quiet.sample(messages)) == ("user:q0|assistant:<>", "a|")
    assert quiet.response(messages) == "a"
    loud = ChatRenderer(tokenizer_with(THINKING, enable_thinking=False), template_args={"enable_thinking": True})
    assert shown(loud.sample(messages)) == ("user:q0|assistant:", "<>a|")
    with pytest.raises(UserError, match=r"reads no 'enable_thinkin'; did you mean 'enable_thinking'"):
        ChatRenderer(tokenizer_with(THINKING), template_args={"enable_thinkin": False})


def test_tools_and_thoughts_reach_the_template_and_nothing_is_left_out_unsaid() -> None:
    template = (
        "{{ tools | tojson }}{% for m in messages %}{{ m.content }}"
        "{% if m.tool_calls %}{{ m.tool_calls[0].name }}{% endif %};{% endfor %}"
    )
    renderer = ChatRenderer(tokenizer_with(template + "{{ documents is none }}"))
    called = [*talk("a")[:1], {"role": "assistant", "content": None, "tool_calls": [{"name": "f<|endoftext|>"}]}]
    ids = renderer.prompt_ids(called, [{"name": "é"}])
    assert bytes(ids).decode() == '[{"name": "é"}]q0;f<|endoftext|>;True'  # no end of text forged
    plain = ChatRenderer(tokenizer_with(SAME))
    for messages, tools, name in ((called, None, "tool_calls"), (called[:1], [{"name": "f"}], "tools")):
        with pytest.raises(UserError, match=f"no place for {name};"):
            plain.prompt_ids(messages, tools)
    thought = {"role": "assistant", "content": "a", "thinking": "t"}
    assert ChatRenderer(tokenizer_with(THINKING)).response([*called[:1], thought]) == "<t>a"


@pytest.mark.skipif(not CASES.is_dir(), reason="shared/cases is not there")
def test_qwen3_s_own_template() -> None:
    """The ids of `transformers`, at each turn, with thoughts and without."""
    transformers = pytest.importorskip("transformers")
    folder = CASES / "checkpoints" / "qwen3"
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = HfGpt2Tokenizer.create([], name=str(folder))
    records = map(json.loads, (CASES / "instructions" / "reasoning.jsonl").read_text().splitlines())
    first, second = (next(records)["messages"] for _ in range(2))
    messages = [{"role": "system", "content": "Be brief."}, *first, *second]
    for args in ({}, {"enable_thinking": False}):
        renderer = ChatRenderer(ours, template_args=args)
        spoken = [{k: v for k, v in m.items() if not args or k != "reasoning_content"} for m in messages]
        samples = renderer.samples(spoken)
        assert len(samples) == 2
        for sample, n in zip(samples, (3, 5), strict=True):
            asked = theirs.apply_chat_template(spoken[: n - 1], add_generation_prompt=True, return_dict=False, **args)
            assert renderer.prompt_ids(spoken[: n - 1]) == asked
            assert sample.ids == theirs.apply_chat_template(spoken[:n], return_dict=False, **args)
            end = theirs.convert_tokens_to_ids("<|im_end|>")
            n_learnt = sample.ids.index(end, len(asked)) + 1 - len(asked)
            assert sample.learnt == [
                *[False] * len(asked),
                *[True] * n_learnt,
                *[False] * (len(sample.ids) - len(asked) - n_learnt),
            ]
