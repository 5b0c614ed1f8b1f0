"""Conversations, texts and ids as prompts, side by side, in Python; each turn as transformers writes the whole talk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from slm.chat.renderer import ChatRenderer
from slm.chat.template import with_template
from slm.errors import UserError
from slm.generation.config import GenerationConfig, Prompt
from slm.generation.language_model import LanguageModel
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.extended import ExtendedTokenizer
from slm.tokenizers.hf_files import save_huggingface

TEMPLATE = (
    "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('not this') }}{% endif %}"
    "{{ m.role }}{{ mood }}:{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}assistant:{% endif %}"
)
SETTINGS = GenerationConfig(greedy=True, max_new_tokens=6, stop_at_eos=False)
USER = {"role": "user", "content": "hé"}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    shape = {"transformer": {"dim": 16, "n_layers": 1, "n_heads": 2}, "position_embedding": {"kind": "none"}}
    values = {"name": "gpt", "params": {"max_seq_len": 400, "vocab_size": 264}, "modules": shape}
    return build_model(ModelConfig.from_dict(values)).eval()


@pytest.fixture
def lm(model: Any) -> LanguageModel:
    return LanguageModel(model, ExtendedTokenizer(ByteTokenizer(), [], TEMPLATE), {})


def test_a_talk_of_three_turns_is_read_as_transformers_writes_it(model: Any, tmp_path: Path) -> None:
    """By `apply_chat_template` over the whole of it, with the model's own answers; streamed, and by its ids, alike."""
    transformers = pytest.importorskip("transformers")
    tokenizer = with_template(ByteTokenizer(), "chatml")
    save_huggingface(tokenizer, tmp_path, 400)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    lm = LanguageModel(model, tokenizer, {})
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]
    for turn in range(3):
        messages.append({"role": "user", "content": f"question {turn}"})
        answer = lm.chat(messages, SETTINGS)
        ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert answer.prompt_tokens == len(ids)
        (alone,) = lm.complete_ids([ids], SETTINGS)
        assert (answer.ids, answer.text) == (alone.ids, alone.text)
        assert lm.generate(ids, SETTINGS) == lm.generate(torch.tensor(ids), SETTINGS) == answer.text
        assert "".join(lm.stream(messages, SETTINGS)) == answer.text
        messages.append(answer.message)
        assert messages[-1] == {"role": "assistant", "content": answer.text}


def test_prompts_of_all_kinds_stand_side_by_side(lm: LanguageModel) -> None:
    """Each as if it had been asked alone; what the template refuses keeps no other from being answered."""
    tools = [{"name": "f"}]
    prompts = ["hé", [1, 2, 3], [USER], Prompt(messages=[USER], tools=tools), Prompt("hé", system="Be.")]
    answers = lm.complete(prompts, SETTINGS, n=2)
    assert [answer[0].ids for answer in answers] == [lm.complete([prompt], SETTINGS)[0][0].ids for prompt in prompts]
    assert answers[0][0].ids == answers[2][0].ids
    texts = ["user:hé|assistant:", "\1\2\3", "user:hé|assistant:", 'user:hé|[{"name": "f"}]assistant:']
    texts.append("system:Be.|user:hé|assistant:")
    assert [answer[1].prompt_tokens for answer in answers] == [len(text.encode()) for text in texts]
    assert lm.chat([USER], SETTINGS, tools=tools, n=3).ids == answers[3][0].ids
    refused = [[{"role": "user", "content": "no"}], [USER, lm.chat([USER], SETTINGS).message], [{"role": "user"}]]
    found = dict(lm.complete_each([*refused, "hé"], SETTINGS))
    assert found[3][0].ids == answers[0][0].ids
    said = ["not this", "the assistant's words", "a role and a content"]
    assert all(words in str(found[i][0].refusal) for i, words in enumerate(said))
    for messages, words in zip([*refused, []], [*said, "none to answer"], strict=True):
        with pytest.raises(UserError, match=words):
            lm.chat(messages, SETTINGS)


def test_what_the_model_is_told_ahead(lm: LanguageModel) -> None:
    """Once, where the conversation does not begin with it; the template gets what it was given in training, or now."""

    def read(prompt: Any, **changes: Any) -> int:
        return lm.complete([prompt], SETTINGS, **changes)[0][0].prompt_tokens

    told = [{"role": "system", "content": "Be kind."}, USER]
    assert read([USER], system="Be kind.") == read(told) == read(told, system="no") == read("hé", system="Be kind.")
    assert read([USER], template_args={"mood": "!!"}) == read([USER]) + 2
    lm.tokenizer = ExtendedTokenizer(ByteTokenizer(), [], TEMPLATE, template_args={"mood": "!"})
    assert read([USER], template_args={"mood": ""}) + 1 == read([USER])
    with pytest.raises(UserError, match="reads no 'moon'; did you mean 'mood'"):
        read([USER], template_args={"moon": 1})
    with pytest.raises(UserError, match="system is told in a conversation"):
        read("hé", system="a", chat=False)
    plain = LanguageModel(lm.model, ByteTokenizer(), {})
    for setting in ({"system": "a"}, {"template_args": {"mood": 1}}):
        with pytest.raises(UserError, match=f"generation.{next(iter(setting))} is for conv.* no chat template"):
            plain.generate("a", SETTINGS, **setting)
    with pytest.raises(UserError, match="has no chat template"):
        plain.chat([USER], SETTINGS)
    with pytest.raises(UserError, match="tools are described by a chat template"):
        plain.complete([Prompt("a", tools=[{"name": "f"}])], SETTINGS)
    with pytest.raises(UserError, match=r"a prompt is a text, a list of ids .* got \['a', 'b'\]"):
        plain.generate(["a", "b"])  # type: ignore[list-item]


def test_every_end_ends_a_text(model: Any) -> None:
    """Llama 3's files name three ids; each is made the likeliest in turn."""
    tokenizer = ExtendedTokenizer(ByteTokenizer(), ["<|eot|>", "<|eom|>"], TEMPLATE, also_ends=[258, 259])
    lm = LanguageModel(model, tokenizer, {})
    for end in (256, 258, 259):
        settings = GenerationConfig(greedy=True, max_new_tokens=3, logit_bias={end: 1e9})
        assert (lm.chat([USER], settings).finish_reason, lm.chat([USER], settings).ids) == ("eos", [])
        assert lm.chat([USER], settings, stop_at_eos=False).ids == [end] * 3
    prompt = ChatRenderer(tokenizer).prompt_ids([USER])
    assert lm.generate(prompt, greedy=True, logit_bias={257: 1e9}, max_new_tokens=3) == ""  # padding ends nothing
