"""slm-push against a hub on this machine: what lies there afterwards, and a line for all that may go wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_stand_in import COMMIT, Hub
from huggingface_hub import ModelCard, constants
from safetensors.torch import load

# huggingface_hub's own, to its HTTP library
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    server = hub.serve()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_writes")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # another protocol, which no stand-in speaks
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def points_run(tmp_path_factory: pytest.TempPathFactory, invoke: Any, tiny: tuple[str, ...]) -> Path:
    """A run that kept two states, of a model of a published family."""
    folder = tmp_path_factory.mktemp("points")
    outcome = invoke(
        folder, "train", *tiny, "run_dir=run", "trainer.save_at={words: [30, 60]}", "trainer.max_steps=8",
        "model.modules.transformer.activation=gelu_tanh",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    return folder / "run"


def test_a_run_with_its_states(hub: Hub, run_cli: Any, points_run: Path) -> None:
    """A branch each, with its own weights; main with the scores; nobody else may see it, and no token is told."""
    outcome = run_cli("push", f"run={points_run}", "repo=me/babylm", "revisions=true", "license=mit")
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out) == {
        "repo": "me/babylm",
        "url": f"{hub.url}/me/babylm",
        "revisions": {"chck_30": COMMIT, "chck_60": COMMIT, "main": COMMIT},
    }
    assert hub.private == {"me/babylm": True}
    assert "hf_writes" not in outcome.out + outcome.err
    branches = hub.repositories["me/babylm"]
    weights = {branch: load(files["model.safetensors"]) for branch, files in branches.items()}
    name = "transformer.wte.weight"
    assert len({weights[branch][name].sum().item() for branch in weights}) == 3
    card = ModelCard(branches["main"]["README.md"].decode())
    assert card.data.license == "mit"
    assert {one.metric_type for one in card.data.eval_results or ()} == {"loss", "perplexity", "bits_per_byte"}
    assert "slm-train data=text" in card.text
    assert ModelCard(branches["chck_30"]["README.md"].decode()).data.eval_results is None  # not measured of it


def test_a_folder_goes_as_it_is(hub: Hub, run_cli: Any, points_run: Path, tmp_path: Path) -> None:
    """One that transformers reads, and the branches of one that to=revisions made; to what is there already."""
    hub.repositories["me/there"] = {"main": {}}
    hub.private["me/there"] = False
    made = run_cli("convert", f"source={points_run}", "to=revisions", "out=mine")
    assert made.status == 0, made.err
    one = run_cli("push", "model_dir=mine", "repo=me/there", "revision=try")
    assert one.status == 0, one.err
    assert "who may see it stays as it is" in one.err
    assert "README.md" in hub.repositories["me/there"]["try"]
    assert not any(name.startswith((".git/", ".cache/")) for name in hub.repositories["me/there"]["try"])
    several = run_cli("push", "model_dir=mine", "repo=there", "revisions=true")
    assert list(json.loads(several.out)["revisions"]) == ["chck_30", "chck_60", "main"]
    assert hub.repositories["me/there"]["main"]["config.json"] == (tmp_path / "mine/config.json").read_bytes()


def test_a_large_file_that_is_refused(hub: Hub, run_cli: Any, points_run: Path) -> None:
    """It was a traceback: the library makes a RuntimeError of it."""
    hub.of_large = 403
    outcome = run_cli("push", f"run={points_run}", "repo=me/x")
    assert (outcome.status, outcome.out) == (2, "")
    assert "'me/x' is not written: the token may not write there" in outcome.err


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "does not know the token"),
        (403, "may not write there"),
        (404, "no such owner"),
        (500, "the hub answers 500"),
    ],
)
def test_what_a_hub_refuses(hub: Hub, run_cli: Any, tiny_run: Path, status: int, told: str) -> None:
    hub.tokens["hf_writes"] = status
    outcome = run_cli("push", f"run={tiny_run}", "repo=me/x")
    assert (outcome.status, outcome.out) == (2, "")
    line = outcome.err.strip().splitlines()[-1]
    assert line.startswith("slm-push: repo: 'me/x' is not written: ")
    assert told in line
    assert "hf_writes" not in line
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("settings", "environment", "told"),
    [
        ([], {"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
        ([], {"HF_TOKEN": ""}, "there is no token for"),
        (["repo=a/b/c"], {}, "is no name of a model"),
        (["model_dir=x"], {}, "give run=PATH"),
        (["revisions=true"], {}, "kept states at save points"),
        (["revisions=true", "revision=x"], {}, "leave revision out"),
    ],
)
def test_mistakes(
    hub: Hub,
    run_cli: Any,
    tiny_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    settings: list[str],
    environment: dict[str, str],
    told: str,
) -> None:
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    outcome = run_cli("push", f"run={tiny_run}", "repo=me/x", *settings)
    assert (outcome.status, outcome.out) == (2, "")
    assert told in outcome.err
    assert hub.repositories == {}
