"""What a card says of a run, and what it leaves out; read back as a hub reads it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from huggingface_hub import ModelCard
from made_runs import make_run

from slm.study.report.model_story import story_of
from slm.weights.model_card import Score, Story, model_card


def results(run: Path, name: str, **content: object) -> None:
    folder = run / "evaluations" / name
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content))


def test_what_was_measured_of_the_model_and_nothing_else(tmp_path: Path) -> None:
    """The newest of each task; none of a part of its items, of another state, or of a file that is damaged."""
    run = make_run(tmp_path / "run", ["data.kind=datasets", "data.path=me/texts", "model.weights=me/base"])
    results(run, "2026-01-01", tasks={"blimp": {"accuracy": 0.5, "pairs": 10}}, limit=None)
    results(run, "2026-01-02", tasks={"blimp": {"accuracy": 0.75, "by": {}}}, limit=None, checkpoint="best")
    results(run, "2026-01-03", tasks={"blimp": {"accuracy": 0.99}}, limit=5)
    results(run, "2026-01-04", tasks={"blimp": {"accuracy": 0.98}}, limit=None, checkpoint="last")
    results(run, "2026-01-05")
    (run / "evaluations/2026-01-05/results.json").write_text("{")
    story = story_of(run, license="mit")
    assert [score for score in story.scores if score.data == "blimp"] == [Score("blimp", "accuracy", 0.75)]
    assert [(one.metric, one.value) for one in story.scores[:1]] == [("loss", 2.0)]
    assert (story.license, story.datasets, story.base_model) == ("mit", ["me/texts"], "me/base")
    assert story.command == "slm-train data.kind=datasets data.path=me/texts model.weights=me/base"
    assert story.facts["run: time"] == "0:10:00"
    other = story_of(run, of_best=False)
    assert (other.scores, [name for name in other.facts if name.startswith("run: ")]) == ([], [])
    assert story_of(tmp_path / "nowhere") == Story()


def test_a_place_on_the_makers_disk_is_nobodys_business(tmp_path: Path) -> None:
    story = story_of(make_run(tmp_path / "run", ["data.kind=text", f"data.path={os.sep}home{os.sep}me{os.sep}books"]))
    assert (story.facts["data"], list(story.datasets)) == ("text books", [])


def test_a_card_is_read_back() -> None:
    """Figures that are none are left out, and nothing breaks its tables."""
    told = Story(
        facts={"data": "a | b\nc"},
        command="slm-train seed=1",
        scores=[Score("blimp", "accuracy", 0.5), Score("x", "loss", float("nan")), Score("x", "loss", 2.0, "test")],
        license="apache-2.0",
        datasets=["me/texts"],
    )
    card = ModelCard(model_card("mine", "llama", {"width": 8}, 1234, needs_trust=True, story=told))
    assert (card.data.license, card.data.datasets, card.data.library_name) == (
        "apache-2.0",
        ["me/texts"],
        "transformers",
    )
    found = {(one.dataset_name, one.metric_type, one.dataset_split): one.metric_value for one in card.data.eval_results}
    assert found == {("blimp", "accuracy", None): 0.5, ("x", "loss", "test"): 2.0}
    assert "1,234 parameters" in card.text
    assert "| data | a   b c |" in card.text
    assert 'from_pretrained("mine", trust_remote_code=True)' in card.text
    plain = ModelCard(model_card("mine", "llama", {}, 1, needs_trust=False, story=Story()))
    assert (plain.data.license, plain.data.eval_results) == (None, None)
    assert "converted, not trained here" in plain.text
