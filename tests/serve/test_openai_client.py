"""The official client, against a server in this process: what it gets is what `LanguageModel` writes."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch

from slm.generation.language_model import LanguageModel

openai = pytest.importorskip("openai", reason="the official client is not installed")


@pytest.fixture(scope="module")
def client(served: Any) -> Any:
    return openai.OpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0, timeout=30)


def test_texts_are_those_of_the_command_for_the_same_seed(client: Any, lm: LanguageModel) -> None:
    """Greedy and drawn, with penalties, biases and stop strings, whatever is written beside it."""
    asked: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"temperature": 0}, {"greedy": True}),
        ({"seed": 3, "temperature": 0.7, "top_p": 0.9}, {"seed": 3, "temperature": 0.7, "top_p": 0.9}),
        ({"seed": 4, "extra_body": {"top_k": 5, "min_p": 0.01}}, {"seed": 4, "top_k": 5, "min_p": 0.01}),
        ({"seed": 5, "presence_penalty": 1}, {"seed": 5, "presence_penalty": 1.0}),
        ({"seed": 5, "logit_bias": {"97": 4}}, {"seed": 5, "logit_bias": {97: 4.0}}),
        ({"seed": 6, "stop": ["e", "a"]}, {"seed": 6, "stop": ["e", "a"]}),
    ]
    for theirs, ours in asked:
        got = client.completions.create(model="small", prompt="def main(", max_tokens=20, **theirs).choices[0]
        whole = lm.complete(["def main("], chat=False, max_new_tokens=20, **ours)[0][0]
        assert (got.text, got.finish_reason) == (
            whole.text,
            "stop" if whole.finish_reason in ("stop", "eos") else "length",
        )


def test_several_prompts_with_several_texts_each(client: Any, lm: LanguageModel) -> None:
    prompts = ["one", "two and more", ""]
    got = client.completions.create(model="small", prompt=prompts, n=2, seed=9, max_tokens=8)
    whole = lm.complete(prompts, chat=False, n=2, seed=9, max_new_tokens=8)
    assert [choice.index for choice in got.choices] == list(range(6))
    assert [choice.text for choice in got.choices] == [one.text for two in whole for one in two]
    assert got.usage.prompt_tokens == sum(two[0].prompt_tokens for two in whole)
    assert got.usage.completion_tokens == sum(one.new_tokens for two in whole for one in two)
    ids = client.completions.create(model="small", prompt=[list(b"one"), list(b"two and more")], seed=9, max_tokens=8)
    assert [choice.text for choice in ids.choices] == [whole[0][0].text, whole[1][0].text]


def test_a_conversation_is_answered_by_the_template(client: Any, lm: LanguageModel) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    got = client.chat.completions.create(model="small", messages=messages, seed=2, max_completion_tokens=12, n=2)
    whole = [lm.chat(plain, seed=2 + j, max_new_tokens=12) for j in range(2)]
    assert [choice.message.content for choice in got.choices] == [one.text for one in whole]
    assert got.choices[0].message.role == "assistant"
    assert got.usage.prompt_tokens == whole[0].prompt_tokens


def test_a_stream_joined_is_the_whole(client: Any) -> None:
    asked = {"model": "small", "prompt": "H\u00e9llo", "seed": 1, "max_tokens": 24, "n": 2}
    whole = client.completions.create(**asked)
    texts, reasons, usage = ["", ""], [None, None], None
    for chunk in client.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_a_streamed_answer(client: Any) -> None:
    asked: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "Hi"}], "seed": 1}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    chunks = list(client.chat.completions.create(**asked, logprobs=True, top_logprobs=2, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    told = [one for chunk in chunks if chunk.choices[0].logprobs for one in chunk.choices[0].logprobs.content]
    assert told == whole.choices[0].logprobs.content
    assert all(one.logprob <= one.top_logprobs[0].logprob for one in told)


def test_log_probabilities_are_the_models_own(client: Any, lm: LanguageModel) -> None:
    """Of a prompt and of what follows, by a plain forward pass; the first token's is null. With no new tokens, too."""
    text = "some text, é"
    ids = list(text.encode())
    for more in (4, 0):
        got = client.completions.create(
            model="small", prompt=text, echo=True, logprobs=3, max_tokens=more, seed=1, extra_body={"ignore_eos": True}
        ).choices[0]
        told = got.logprobs
        assert told.token_logprobs[0] is None
        assert told.top_logprobs[0] is None
        assert got.text.startswith(text)
        written = lm.complete([text], chat=False, seed=1, max_new_tokens=4, stop_at_eos=False)[0][0].ids[:more]
        whole = torch.tensor([[*ids, *written]])
        with torch.inference_mode():
            expected = lm.model(whole).log_softmax(-1)[0, :-1].gather(-1, whole[0, 1:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(told.token_logprobs[1:]), expected, rtol=1e-5, atol=1e-5)
        assert len(told.tokens) == len(told.text_offset) == len(ids) + more
        assert told.tokens[-1 - more] == "bytes:\\xa9", "half a character"
        assert all(3 <= len(top) <= 4 for top in told.top_logprobs[1:])
        for place, token in zip(told.text_offset[:9], told.tokens[:9], strict=True):
            assert text[place : place + 1] == token
        with torch.inference_mode():
            likeliest = lm.model(whole).log_softmax(-1)[0, :-1].max(-1).values.tolist()
        tops = [max(top.values()) for top in told.top_logprobs[1:]]
        assert all(math.isclose(a, b, abs_tol=1e-5) for a, b in zip(tops, likeliest, strict=True))


def test_an_end_of_text_has_its_log_probability(client: Any) -> None:
    """Clients that ask for one new token drop the last entry: without it they would drop the prompt's last token."""
    bias = {"256": 100}
    got = client.completions.create(model="small", prompt="ab", echo=True, logprobs=1, max_tokens=1, logit_bias=bias)
    assert got.choices[0].finish_reason == "stop"
    assert got.choices[0].text == "ab"
    assert len(got.choices[0].logprobs.token_logprobs) == 3
    assert got.choices[0].logprobs.tokens[-1] == "<|endoftext|>"


def test_a_stream_that_is_left_frees_its_row(client: Any, served: Any) -> None:
    api = served[1]
    asked = {"model": "small", "prompt": "a", "max_tokens": 200, "stream": True, "extra_body": {"ignore_eos": True}}
    stream = client.completions.create(**asked)
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 10
    while api.worker.n_open or any(model.lane.busy for model in api.models):
        assert time.monotonic() < deadline, "the row is still written"
        time.sleep(0.01)


def test_models_are_listed_and_told_apart(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["small", "plain"]
    assert client.models.retrieve("plain").slm == {**client.models.retrieve("small").slm, "chat": False}
    one, other = (
        client.completions.create(model=name, prompt="a", temperature=0).choices[0].text for name in ("small", "plain")
    )
    assert one != other


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"model": "smal"}, 404, "there is no model 'smal'; did you mean 'small'?"),
        ({"prompt": "a" * 300}, 400, "the prompt has 300 tokens; this model takes 256"),
        ({"prompt": [[1, 2], [99999]]}, 400, "prompt 2 of 2: the prompt has the token id 99999"),
        ({"temperature": -1}, 400, "temperature"),
        ({"extra_body": {"max_token": 3}}, 400, "did you mean 'max_tokens'?"),
        ({"n": 100}, 400, "100 texts at once"),
        ({"best_of": 3}, 400, "best_of is 3 and n is 1"),
    ],
)
def test_what_cannot_be_is_said(client: Any, asked: dict[str, Any], status: int, message: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(**{"model": "small", "prompt": "a", **asked})
    assert caught.value.status_code == status
    assert message in caught.value.body["message"]


def test_a_model_without_a_template_answers_no_messages(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model="plain", messages=[{"role": "user", "content": "Hi"}])
