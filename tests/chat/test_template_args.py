"""What a chat template is given beside messages travels with the model, in every form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest

from slm.chat.renderer import ChatRenderer
from slm.chat.template import with_template
from slm.errors import UserError
from slm.tokenizers.build import build_tokenizer
from slm.tokenizers.hf_files import published_template, save_huggingface
from slm.tokenizers.load import load_tokenizer

TEMPLATE = "{% for m in messages %}{{ m.content }}{{ tone }}{{ eos_token }}{% endfor %}{{ style.a }}{{ none is none }}"
ASKED = [{"role": "user", "content": "q"}]
ARGS: dict[str, Any] = {"tone": 'é "\\\n', "style": {"a": [1, None, True, -0.5]}}


@pytest.fixture
def template(tmp_path: Path) -> str:
    file = tmp_path / "t.jinja"
    file.write_text(TEMPLATE)
    return str(file)


def test_what_training_gave_is_given_by_itself_ever_after(template: str, tmp_path: Path) -> None:
    """In a bundle; in an export, to `transformers`; and in more training, unless something else is asked for."""
    transformers = pytest.importorskip("transformers")
    plain = build_tokenizer({"kind": "byte"}, [])
    tokenizer = with_template(plain, "hf", template, ARGS)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.template_args == ARGS
    assert loaded.fingerprint == with_template(plain, "hf", template).fingerprint
    save_huggingface(loaded, tmp_path / "hf", 100)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    for more in ({}, {"tone": "!"}, {"style": {"a": 0}, "tone": ""}):
        ids = ChatRenderer(loaded, template_args=more).prompt_ids(ASKED)
        assert ids == theirs.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=False, **more)
        assert loaded.decode(ids) == f"q{more.get('tone', ARGS['tone'])}{more.get('style', ARGS['style'])['a']}True"
    assert with_template(loaded, "hf") is loaded
    assert with_template(loaded, "hf", args={"tone": "?"}).template_args == {**ARGS, "tone": "?"}
    assert with_template(loaded, "chatml").template_args == {}


@pytest.mark.parametrize("kind", ["chatml", "alpaca"])
def test_a_template_without_marks_writes_the_same(kind: str) -> None:
    """For readers to which ``{% generation %}`` is no Jinja: here Jinja as it is."""
    tokenizer = with_template(build_tokenizer({"kind": "byte"}, []), kind)
    talk = [*ASKED, {"role": "assistant", "content": "a"}, *ASKED]
    unmarked = published_template(tokenizer, marks=False)
    names = {"messages": talk, "add_generation_prompt": True, "eos_token": "<|endoftext|>"}
    plain = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(unmarked or "").render(names)
    assert tokenizer.encode_parts(tokenizer.special_pattern.split(plain)).ids == ChatRenderer(tokenizer).prompt_ids(
        talk
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"tones": 1}, r"reads no 'tones'; did you mean 'tone'\? \(it reads style, tone\)"),
        ({"messages": []}, "reads no 'messages'"),
        ({"eos_token": ""}, "reads no 'eos_token'"),
    ],
)
def test_what_no_template_reads_is_refused(template: str, args: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        with_template(build_tokenizer({"kind": "byte"}, []), "hf", template, args)
    with pytest.raises(UserError, match=r"reads no 'tone' \(it reads none\)"):
        with_template(build_tokenizer({"kind": "byte"}, []), "chatml", args={"tone": 1})
