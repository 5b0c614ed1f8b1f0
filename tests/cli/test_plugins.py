"""A model in somebody else's package: found by name on every command line, nothing in `slm` edited."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from slm import registry
from slm.registry import MODELS

MINE = """
from slm.models.meta_arch.gpt import GPT
from slm.registry import register_model

@register_model("mine")
class Mine(GPT):
    def hidden_states(self, input_ids, cache=None):
        return -super().hidden_states(input_ids, cache)
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A module ``their_models`` on the path; what a test registers is forgotten after it."""
    MODELS.get("gpt")  # what is imported later would be forgotten with the test, and never imported again
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    (tmp_path / "their_models.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_models", raising=False)


def forget() -> None:
    """As a new process would: nothing is registered, nothing imported."""
    MODELS._entries.pop("mine", None)
    sys.modules.pop("their_models", None)


def test_a_model_of_ones_own(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Trained, resumed, evaluated and generated from; a run's folder may be anybody's, so the module is named each
    time."""
    named = "plugins=[their_models]"
    refused = run_cli("train", *tiny, "model.name=mine", "run_dir=run")
    assert (refused.status, "no model is called 'mine'" in refused.err) == (2, True)
    outcome = run_cli("train", *tiny, "model.name=mine", named, "run_dir=run", "stop_after=3")
    assert outcome.status == 0, outcome.err
    assert "model mine" in outcome.err
    forget()
    assert run_cli("train", "resume=run", named).status == 0
    forget()
    evaluated = run_cli("evaluate", "run=run", "batch_size=4", named)
    assert evaluated.status == 0, evaluated.err
    best = json.loads((tmp_path / "run/summary.json").read_text())["best_val_loss"]
    assert json.loads(evaluated.out)["loss"] == pytest.approx(best, abs=1e-5)
    forget()
    refused = run_cli("generate", "run=run", "prompt=a")
    assert (refused.status, f"if you trust them, name them: {named}" in refused.err) == (2, True)
    written = run_cli("generate", "run=run", "prompt=a", "generation.max_new_tokens=4", named)
    assert written.status == 0, written.err


def test_an_installed_package_needs_no_setting(
    run_cli: Any, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that declares an entry point of the group is imported by itself, by every command."""

    class EntryPoint:
        @staticmethod
        def load() -> Any:
            return __import__("their_models")

    def entry_points(*, group: str) -> list[Any]:
        return [EntryPoint] if group == "slm.plugins" else []

    monkeypatch.setattr(registry, "entry_points", entry_points)
    outcome = run_cli("train", *tiny, "model.name=mine", "run_dir=run")
    assert outcome.status == 0, outcome.err
    forget()
    written = run_cli("generate", "model_dir=run/model", "prompt=a", "generation.max_new_tokens=4")
    assert written.status == 0, written.err
