"""Plain dictionaries to typed settings."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from annotated_types import Ge

from slm.errors import UserError
from slm.generation.config import GenerationConfig
from slm.models.config import ModelConfig
from slm.schema import call_problems, checked, together
from slm.suggest.nearest import ranked


def model(**changes: Any) -> dict[str, Any]:
    transformer = {"dim": 8, "n_layers": 1, "n_heads": 2, **changes.pop("transformer", {})}
    modules = {"transformer": transformer, **changes.pop("modules", {})}
    return {"name": "gpt", "params": {"max_seq_len": 4}, "modules": modules, **changes}


def lines(**changes: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        ModelConfig.from_dict(model(**changes))
    return str(caught.value).splitlines()


def test_a_configuration_comes_back_from_its_dictionary() -> None:
    """Through JSON's types: what a bundle stores is what was built."""
    config = ModelConfig.from_dict(model(transformer={"norm": "rms_norm", "mlp_mult": 2.5})).with_vocab_size(7)
    assert ModelConfig.from_dict(config.to_dict()) == config


def test_all_problems_are_reported_at_once() -> None:
    """Unknown, missing, of a wrong type, out of range, no such name: on every level, each by its full name.

    Names were checked only once all else was right, and only the first of them.
    """
    found = lines(
        name="gtp",
        params={"dropout": 1.0, "max_seq_length": 8},
        transformer={"dim": "8", "n_layers": True, "norm": "layernorm", "activation": "gelo"},
        modules={"loss": {"kind": "crossentropy"}},
    )
    starts = {
        "model.name: no model is called 'gtp'; did you mean 'gpt'?",
        "model.params.max_seq_len is missing",
        "model.params.dropout should be less than 1; got 1.0",
        "unknown key 'model.params.max_seq_length'; did you mean 'max_seq_len'?",
        "model.modules.transformer.dim should be a valid integer; got '8'",
        "model.modules.transformer.n_layers should be a valid integer; got True",
        "model.modules.transformer.norm: no norm is called 'layernorm'; did you mean 'layer_norm'?",
        "model.modules.transformer.activation: no activation is called 'gelo'; did you mean 'gelu'?",
        "model.modules.loss.kind: no loss is called 'crossentropy'; did you mean 'cross_entropy'?",
    }
    assert {start for start in starts if any(line.startswith(start) for line in found)} == starts
    assert len(found) == len(starts)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"transformer": {"n_heads": 3}}, "model.modules.transformer: dim (8) must be a multiple of n_heads (3)"),
        ({"transformer": {"mlp_mult": 0.01}}, "model.modules.transformer: mlp_mult (0.01) times dim (8) must be at"),
        ({"modules": {"token_embedding": {"freeze": True}}}, "model.modules: output_projection.freeze and token_emb"),
        (
            {"modules": {"loss": {"knd": 1}}},
            "unknown key 'model.modules.loss.knd'; did you mean 'kind'? (allowed under",
        ),
    ],
)
def test_rules_across_fields_and_unknown_keys_below(changes: dict[str, Any], said: str) -> None:
    (line,) = lines(**changes)
    assert line.startswith(said)


def test_what_is_no_mapping_is_said() -> None:
    for values in (None, "cosine", [1]):
        with pytest.raises(UserError, match="generation must be a mapping of settings; got"):
            checked(GenerationConfig, values, "generation")  # type: ignore[arg-type]


def test_whole_numbers_pass_for_decimals_but_not_the_other_way() -> None:
    """`temperature=1` is meant; `top_k=1.0` and `greedy=1` are slips."""
    assert checked(GenerationConfig, {"temperature": 1}).temperature == 1
    with pytest.raises(UserError) as caught:
        checked(GenerationConfig, {"top_k": 1.0, "greedy": 1, "max_new_tokens": "9"}, "generation")
    assert len(str(caught.value).splitlines()) == 3


def build(texts: list[str], size: Annotated[int, Ge(2)], *, path: str | list[str], fast: bool = False) -> None:
    pass


def test_the_arguments_of_a_function_are_checked_alike() -> None:
    """Missing ones too, keyword-only or not: those that are not came back as Python's own TypeError."""
    assert call_problems(build, {"size": 2, "path": ["a"]}, "data", given=1) == []
    assert call_problems(build, {"size": 1, "fats": True}, "data", given=1) == [
        "data.size should be greater than or equal to 2; got 1",
        "unknown key 'data.fats'; did you mean 'fast'? (allowed under 'data': fast, path, size)",
        "data.path is missing; set it",
    ]
    (line,) = call_problems(build, {"size": 2, "path": 5}, "data", given=1)
    assert line == "data.path should be a valid string or should be a valid list; got 5"
    assert call_problems(lambda **anything: None, {"x": 1}, "data") == []


def test_together_keeps_every_line_and_every_result() -> None:
    def refuse(text: str) -> None:
        raise UserError(text)

    assert together(lambda: 1, lambda: 2) == [1, 2]
    with pytest.raises(UserError, match="a\nb\nc"):
        together(lambda: refuse("a\nb"), lambda: 1, lambda: refuse("c"))


def test_the_nearest_name() -> None:
    assert ranked("LR", ["lr", "eps"])[0] == "lr"
    assert ranked("weight_decy", ["lr", "weight_decay"])[0] == "weight_decay"
    assert ranked("zzz", ["lr", "weight_decay"]) == []
