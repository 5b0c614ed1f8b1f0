"""slm-evaluate tasks=[…]: benchmarks of a run, as JSON and in files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from documented_json import differences


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, as BLiMP and BabyLM have them: a kind a file."""
    folder = tmp_path_factory.mktemp("pairs")
    for kind, good, bad in (("order", "the cat sat", "cat the sat"), ("verbs", "one dog run", "one run dog")):
        record = json.dumps({"sentence_good": good, "sentence_bad": bad, "linguistics_term": "syntax"})
        (folder / f"{kind}.jsonl").write_text(f"{record}\n" * 3)
    return folder


def test_a_base_model_is_scored_on_pairs(run_cli: Any, tiny_run: Path, pairs: Path, tmp_path: Path) -> None:
    """It needed a chat template. All that is told lies in the folder, too; what is there already stays."""
    asked = [f"run={tiny_run}", "tasks=[minimal_pairs,in_context]", f"minimal_pairs.path={pairs}", "in_context.early=4"]
    outcome = run_cli("evaluate", *asked, "out=out", "limit=2")
    assert outcome.status == 0, outcome.err
    assert differences("slm-evaluate tasks=[…]", outcome.out) == []
    found = json.loads(outcome.out)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == found
    scored = found["tasks"]["minimal_pairs"]
    assert [(one["uid"], one["pairs"]) for one in scored["by"]["uid"]] == [("order", 2), ("verbs", 2)]
    assert [(one["phenomenon"], one["pairs"]) for one in scored["by"]["phenomenon"]] == [("syntax", 4)]
    with (tmp_path / "out" / "minimal_pairs.csv").open(newline="") as lines:
        assert [row["good"] for row in csv.DictReader(lines)] == ["the cat sat"] * 2 + ["one dog run"] * 2
    assert found["tasks"]["in_context"]["late"] == 16, "what the model reads"
    assert found["tasks"]["in_context"]["windows"] == 2
    again = run_cli("evaluate", *asked, "out=out")
    assert again.status == 2
    assert "is there already and is left as it is" in again.err


def test_results_of_a_run_lie_in_its_folder(run_cli: Any, tiny: Any, tmp_path: Path) -> None:
    assert run_cli("train", *tiny, "run_dir=run").status == 0
    (tmp_path / "story.txt").write_text("the cat sat\n")
    outcome = run_cli("evaluate", "run=run", "tasks=[surprisal]", "surprisal.path=story.txt", "json=false")
    assert outcome.status == 0, outcome.err
    assert [line.split()[:2] for line in outcome.out.splitlines()] == [
        ["task", "figure"], ["surprisal", "bits_per_word"], ["surprisal", "words"],
    ]  # fmt: skip
    (file,) = (tmp_path / "run" / "evaluations").glob("*/surprisal.csv")
    assert [line.split(",")[1] for line in file.read_text().splitlines()] == ["word", "the", "cat", "sat"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tasks=[minimal_pairs]"], "minimal_pairs.path is missing"),
        (["minimal_pairs.path=x"], "minimal_pairs is set, and no task that tasks names reads it"),
        (["tasks=[minimal_pairs]", "minimal_pairs.path=none"], "there is no file 'none', nor a folder with .jsonl"),
        (["tasks=[induction]", "data.seq_len=8"], "data is of what is read without tasks"),
        (["tasks=[induction]", "split=test", "answers=3"], "answers is of what is read without tasks"),
        (["tasks=[induction]", "precision=16"], "precision: tasks are read in 32"),
        (["tasks=[induction]", "induction.lenght=8"], "did you mean 'induction.length'?"),
        (["tasks=[induction]", "induction.length=64"], "induction.length must be 2 to 8: the model reads 16 tokens"),
        (["tasks=[induction]", "limit=0"], "limit should be greater than 0"),
        (["tasks=[induction]", "limit=2.5"], "limit is a whole number of items, or a share of them below 1"),
    ],
)
def test_mistakes(run_cli: Any, tiny_run: Path, arguments: list[str], message: str) -> None:
    outcome = run_cli("evaluate", f"run={tiny_run}", *arguments)
    assert outcome.status == 2, outcome.err
    assert message in outcome.err
    assert "Traceback" not in outcome.err
