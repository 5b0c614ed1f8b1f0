"""Settings: their names, ranges and YAML."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_type_hints

import annotated_types
import pytest
import yaml

from slm.errors import UserError
from slm.registry import TOKENIZERS
from slm.tokenizers.build import build_tokenizer

KINDS = ["bpe", "byte", "hf_gpt2", "regex", "simple", "tiktoken"]
CONF = Path(__file__).parents[2] / "conf" / "tokenizer"


@pytest.mark.parametrize("kind", KINDS)
def test_the_yaml_holds_each_setting_with_its_default(kind: str) -> None:
    _, *parameters = inspect.signature(TOKENIZERS.get(kind).create).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters}
    assert yaml.safe_load((CONF / f"{kind}.yaml").read_text()) == {"kind": kind, **defaults}


@pytest.mark.parametrize("kind", KINDS)
def test_a_setting_below_the_range_in_its_type_is_refused(kind: str) -> None:
    for name, hint in get_type_hints(TOKENIZERS.get(kind).create, include_extras=True).items():
        for bound in getattr(hint, "__metadata__", ()):
            assert isinstance(bound, annotated_types.Ge)
            with pytest.raises(UserError, match=rf"tokenizer\.{name} .*equal to {bound.ge}; got {bound.ge - 1}"):
                build_tokenizer({"kind": kind, name: bound.ge - 1}, ["text"])


@pytest.mark.parametrize("kind", ["bpe", "regex", "simple"])
@pytest.mark.parametrize("texts", [[], [""]])
def test_nothing_to_fit_on_is_refused(kind: str, texts: list[str]) -> None:
    with pytest.raises(UserError, match="check that the data is not empty"):
        build_tokenizer({"kind": kind}, texts)


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"tokenizer\.vocab_sise'; did you mean 'vocab_size'"):
        build_tokenizer({"kind": "bpe", "vocab_sise": 300}, ["text"])
    with pytest.raises(UserError, match=r"unknown key 'tokenizer\.vocab_size'.*nothing"):
        build_tokenizer({"kind": "byte", "vocab_size": 300}, ["text"])


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'bpe'"):
        build_tokenizer({"kind": "bpee"}, ["text"])
