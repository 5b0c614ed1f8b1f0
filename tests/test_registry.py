"""Names to what they build: how a user's own package joins in."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from torch import nn

from slm import extras, registry
from slm.errors import UserError
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.registry import ACTIVATIONS, CORPORA, LOSSES, MODELS, NORMS, POSITION_EMBEDDINGS, TOKENIZERS, Registry

ALL = [MODELS, NORMS, ACTIVATIONS, POSITION_EMBEDDINGS, LOSSES, TOKENIZERS, CORPORA]


@pytest.mark.parametrize("kind", ALL, ids=lambda registry: registry.kind)
def test_every_builtin_name_is_registered_by_the_file_it_points_to(kind: Registry) -> None:
    for name in kind.names():
        assert kind.get(name).__module__ == kind._builtin[name]


def test_an_unknown_name_gets_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no activation is called 'GELU_tan'; did you mean 'gelu_tanh'\?") as caught:
        ACTIVATIONS.get("GELU_tan")
    assert all(name in str(caught.value) for name in ACTIVATIONS.names())


def test_a_name_is_taken_once() -> None:
    """By a built-in even before its file is imported; the same thing defined again (a reload) is no clash."""

    def define(kind: Registry, name: str) -> type:
        @kind.register(name)
        class Mine:
            pass

        return Mine

    fresh = Registry("thing", {"builtin": "some.module"})
    define(fresh, "mine")
    again = define(fresh, "mine")
    assert fresh.get("mine") is again
    with pytest.raises(UserError, match=r"'mine' is taken by .*Mine"):
        fresh.register("mine")(nn.Linear)
    with pytest.raises(UserError, match=r"'builtin' is taken by some\.module"):
        define(fresh, "builtin")
    with pytest.raises(UserError, match=r"'gpt' is taken by slm\.models\.meta_arch\.gpt"):
        define(MODELS, "gpt")


PLUGIN = """
from slm.models.meta_arch.gpt import GPT
from slm.registry import register_model

@register_model("mine")
class Mine(GPT):
    pass
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "plugin_of_mine.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    monkeypatch.delitem(sys.modules, "plugin_of_mine", raising=False)
    importlib.invalidate_caches()
    return "plugin_of_mine"


@pytest.mark.parametrize("way", ["plugins=", "entry point"])
def test_a_plugins_model_builds_by_its_name(plugin: str, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Nothing in slm is edited: the name is valid in a configuration and builds the user's class."""
    if way == "plugins=":
        registry.load_plugins([plugin])
    else:
        mine = EntryPoint("mine", plugin, registry.ENTRY_POINT_GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: [mine] if group == "slm.plugins" else [])
        registry.load_plugins([])
    config = ModelConfig.from_dict(
        {
            "name": "mine",
            "params": {"max_seq_len": 4, "vocab_size": 5},
            "modules": {"transformer": {"dim": 4, "n_layers": 1, "n_heads": 1}},
        }
    )
    assert type(build_model(config)).__name__ == "Mine"


def test_a_missing_plugin_or_extra_is_one_line(plugin: str) -> None:
    with pytest.raises(UserError, match="cannot import 'plugin_of_yours'"):
        registry.load_plugins([plugin, "plugin_of_yours"])
    with pytest.raises(UserError, match=r"logger=x needs the package 'plugin_of_yours': pip install 'slm\[x\]'"):
        extras.require("plugin_of_yours.part", "x", "logger=x")


def test_an_extra_that_is_there_but_broken_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice to install it would be wrong: what is missing is something that it needs."""
    (tmp_path / "broken_extra.py").write_text("import something_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_needs"):
        extras.require("broken_extra", "x", "logger=x")


def test_a_model_whose_forward_gives_no_hidden_states_is_told_what_to_add(monkeypatch: pytest.MonkeyPatch) -> None:
    """One written for an earlier contract: training would end in a TypeError at the first step."""
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))

    @registry.register_model("early")
    class Early(MODELS.get("gpt")):  # type: ignore[misc]
        def forward(self, input_ids: object, cache: object = None) -> object:
            return super().forward(input_ids, cache)

    shape = {"transformer": {"dim": 4, "n_layers": 1, "n_heads": 1}}
    values = {"name": "early", "params": {"max_seq_len": 4, "vocab_size": 5}, "modules": shape}
    with pytest.raises(UserError, match=r"'early' \(.*Early\): its forward has no argument return_hidden"):
        build_model(ModelConfig.from_dict(values))
