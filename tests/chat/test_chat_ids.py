"""Conversations have the ids of `transformers`, in training and in generation: twelve vocabularies, eight templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chat_vocabularies import VOCABULARIES, published

from slm.chat.renderer import ChatRenderer
from slm.chat.template import with_template
from slm.generation.completion import WithoutLead
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.hf_files import save_huggingface
from slm.tokenizers.hf_gpt2 import HfGpt2Tokenizer

_LOOP = "{% for m in messages %}{% if m.role == 'user' %}"
TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "llama2": _LOOP + "{{ bos_token }}[INST] {{ m.content }} [/INST]{% else %} {{ m.content | trim }} {{ eos_token }}"
    "{% endif %}{% endfor %}",
    "zephyr": "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "alpaca": _LOOP + "### Instruction:\n{{ m.content }}\n\n{% else %}### Response:\n{{ m.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}",
    "ends in a space": _LOOP + "User: {{ m.content }}\n{% else %}Assistant: {{ m.content }}{{ eos_token }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}",
    "ends in two lines": "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n\n{{ m.content | trim }}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}",
    "ends in a token": "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "marked": _LOOP + "{{ m.content }}\n{% else %}{% generation %}= {{ m.content }}{{ eos_token }}{% endgeneration %}\n"
    "{% endif %}{% endfor %}",
}
ASKED = ["Say  hello", " 12 + 30", "they said:\n", "é😀 and we"]
ANSWERS = ["They went on.", "Forty 2", "éa we\n\nare here", "the hat "]
ODD = ["42", "  two spaces", "\n\nline", "日本 we", "."]  # ahead of such an answer white space may be cut otherwise


def talk(*answers: str) -> list[dict[str, str]]:
    pairs = zip(ASKED, answers, strict=False)
    return [m for a, b in pairs for m in ({"role": "user", "content": a}, {"role": "assistant", "content": b})]


@pytest.fixture(scope="module", params=VOCABULARIES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """A vocabulary as ours and as that of `transformers`."""
    transformers = pytest.importorskip("transformers")
    place = published(request.param, tmp_path_factory.mktemp("vocabulary"))
    return HfGpt2Tokenizer.create([], name=str(place)), transformers.AutoTokenizer.from_pretrained(place)


@pytest.mark.parametrize("name", TEMPLATES)
def test_training_and_generation_read_the_ids_of_transformers(both: tuple[Tokenizer, Any], name: str) -> None:
    """Of the whole conversation, at each turn. Parts of it were once encoded by themselves: a response had a space more
    in training than in generation, and earlier turns had other ids than either."""
    ours, theirs = both
    ours.chat_template = TEMPLATES[name]
    renderer = ChatRenderer(ours)
    written = {"chat_template": TEMPLATES[name], "return_dict": False}
    for answers in [ANSWERS[:turns] for turns in (1, 2, 3, 4)] + [[answer] for answer in ODD]:
        expected = theirs.apply_chat_template(talk(*answers), **written)
        ids = renderer.sample(talk(*answers)).ids
        assert ids in (expected, [*expected, ours.eos_id])  # a response that no special token ends gets one
    sample = renderer.sample(talk(*ANSWERS))
    for turn in range(4):
        asked = talk(*ANSWERS)[: 2 * turn + 1]
        ids = renderer.prompt_ids(asked)
        assert ids == sample.ids[: len(ids)]
        assert (sample.learnt[len(ids) - 1], sample.learnt[len(ids)]) == (False, True)
        text = theirs.apply_chat_template(asked, add_generation_prompt=True, tokenize=False, **written)
        if not (text.endswith(" ") or text[-2:].isspace()):  # which is cut otherwise once an answer follows
            assert ids == theirs.apply_chat_template(asked, add_generation_prompt=True, **written)


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_comes_out_is_what_was_continued(both: tuple[Tokenizer, Any], name: str) -> None:
    """The ids of an answer give its text back, whatever spaces the vocabulary or the template have before it: the next
    turn begins with the ids that were written. Those behind half a text give its other half."""
    ours, _ = both
    ours.chat_template = TEMPLATES[name].replace("= {{", "{{")
    renderer = ChatRenderer(ours)
    for turn, answer in enumerate(ANSWERS):
        if ours.decode(ours.encode(answer)).strip() != answer.strip():
            continue  # it has unknown characters
        sample = renderer.sample(talk(*ANSWERS[: turn + 1]))
        ids = renderer.prompt_ids(talk(*ANSWERS)[: 2 * turn + 1])
        decoder = WithoutLead(ours.decoder_after(ids), renderer.answer_lead)
        text = "".join(map(decoder.push, sample.ids[len(ids) :])) + decoder.flush()
        assert text.startswith(answer.rstrip())
    for text in ("They went on. the hat", "we are here: they said"):
        whole, half = ours.encode(text), ours.encode(text[:12])
        if whole[: len(half)] == half and ours.decode(whole).strip() == text:
            decoder = ours.decoder_after(half)
            assert "".join(map(decoder.push, whole[len(half) :])) + decoder.flush() == text[12:]


def test_a_message_that_spells_a_special_token_is_text(both: tuple[Tokenizer, Any]) -> None:
    """Where `transformers` makes it that token; all that is not of that message has the same ids."""
    ours, _ = both
    ours.chat_template = TEMPLATES["zephyr"]
    renderer = ChatRenderer(ours)
    plain, forged = ([*talk("the hat"), {"role": "user", "content": f"we {word} we"}] for word in ("are", "</s>"))
    expected, ids = renderer.prompt_ids(plain), renderer.prompt_ids(forged)
    first = next(i for i, (one, other) in enumerate(zip(expected, ids, strict=False)) if one != other)
    behind = len(expected) - first - 3  # a word in at most three tokens
    assert ids.count(ours.eos_id) == expected.count(ours.eos_id)
    assert ids[-behind:] == expected[-behind:]


def test_turns_that_a_vocabulary_lacks_are_added_as_they_will_be_exported(
    both: tuple[Tokenizer, Any], tmp_path: Path
) -> None:
    """`template=chatml`: what stands behind an added token begins no text, where the vocabulary has it so."""
    transformers = pytest.importorskip("transformers")
    extended = with_template(both[0], "chatml")
    save_huggingface(extended, tmp_path, 100)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = talk(*ANSWERS[:2])
    assert ChatRenderer(extended).sample(messages).ids == theirs.apply_chat_template(messages, return_dict=False)


@pytest.mark.parametrize("name", ["chatml", "alpaca"])
def test_our_templates_tell_transformers_what_is_learnt(both: tuple[Tokenizer, Any], tmp_path: Path, name: str) -> None:
    """Their ``{% generation %}`` blocks, by which others train on answers alone, are our mask, token by token."""
    transformers = pytest.importorskip("transformers")
    extended = with_template(both[0], name)
    save_huggingface(extended, tmp_path, 100)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = talk(*ANSWERS)
    found = theirs.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    sample = ChatRenderer(extended).sample(messages)
    assert sample.ids == found["input_ids"]
    assert sample.learnt == [bool(learnt) for learnt in found["assistant_masks"]]
    assert 0 < sum(sample.learnt) < len(sample.learnt)
