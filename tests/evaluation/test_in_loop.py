"""callbacks=evaluation: training is the same with it, to the last bit, and a resumed run is the unbroken one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slm.evaluation.in_loop import periods

PAIRS = [("the cat sat on a mat", "the cat mat on a sat"), ("one dog run", "dog one run")]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[str, ...]) -> tuple[str, ...]:
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    records = ({"sentence_good": good, "sentence_bad": bad} for good, bad in PAIRS)
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    kept = [setting for setting in tiny if not setting.startswith("callbacks=")]
    own = "callbacks.evaluation"
    return (
        *kept,
        "model.params.dropout=0.2",
        "callbacks=evaluation",
        f"{own}.tasks=[minimal_pairs,in_context,induction]",
        f"{own}.minimal_pairs.path={file}",
        f"{own}.in_context.early=4",
        f"{own}.induction.length=6",
        f"{own}.induction.sequences=2",
        f"{own}.every=2",
        f"{own}.share=0",
        "~callbacks.sample_text",
    )


def test_training_and_resuming_are_exact(
    run_cli: Any, evaluated: tuple[str, ...], tmp_path: Path, metrics_of: Any
) -> None:
    """With dropout, so that a single draw more would show; stopped between two evaluations."""
    whole = run_cli("train", *evaluated, "run_dir=whole")
    assert whole.status == 0, whole.err
    assert "evaluation: minimal_pairs, in_context, induction every 2 steps" in whole.err
    assert "evaluation took" in whole.err
    rows = metrics_of(tmp_path / "whole")
    names = [name for name in rows[0] if name.startswith("eval/")]
    assert {"eval/minimal_pairs/accuracy_sum", "eval/in_context/score", "eval/induction/score"} <= set(names)
    evaluations = [row["step"] for row in rows if row["eval/induction/score"]]
    assert evaluations == ["2", "4", "6"]
    plain = run_cli("train", *(s for s in evaluated if "callbacks" not in s), "callbacks=none", "run_dir=plain")
    assert plain.status == 0, plain.err
    weights = Path("model/model.safetensors")
    assert (tmp_path / "plain" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    assert run_cli("train", *evaluated, "run_dir=part", "stop_after=3").status == 0
    resumed = run_cli("train", "resume=part", "stop_after=null")
    assert resumed.status == 0, resumed.err
    assert (tmp_path / "part" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    assert metrics_of(tmp_path / "part") == rows


def test_figures_are_those_of_the_command(
    run_cli: Any, evaluated: tuple[str, ...], tmp_path: Path, metrics_of: Any
) -> None:
    """At the last step, of the weights that are saved then."""
    assert run_cli("train", *evaluated, "run_dir=run").status == 0
    file = next(s for s in evaluated if "minimal_pairs.path" in s).partition("callbacks.evaluation.")[2]
    again = run_cli("evaluate", "run=run", "checkpoint=last", "tasks=[minimal_pairs]", file, "out=out")
    assert again.status == 0, again.err
    found = json.loads(again.out)["tasks"]["minimal_pairs"]
    last = metrics_of(tmp_path / "run")[-1]
    for name in ("accuracy_sum", "accuracy_pmi_by_uid"):
        assert float(last[f"eval/minimal_pairs/{name}"]) == pytest.approx(found[name])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("callbacks.evaluation.every=0", "callbacks.evaluation.every should be greater than 0; got 0"),
        ("callbacks.evaluation.share=1", "callbacks.evaluation.share should be less than 1; got 1"),
        ("callbacks.evaluation.tasks=[]", "callbacks.evaluation.tasks names none"),
        ("+callbacks.evaluation.shard=1", "unknown key 'callbacks.evaluation.shard'; did you mean 'share'?"),
        ("callbacks.evaluation.minimal_pairs.path=none.jsonl", "there is no file 'none.jsonl'"),
        ("callbacks.evaluation.induction.length=64", "induction.length must be 2 to 8: the model reads 16 tokens"),
    ],
)
def test_mistakes_are_told_ahead_of_the_first_step(
    run_cli: Any, evaluated: tuple[str, ...], tmp_path: Path, setting: str, said: str
) -> None:
    outcome = run_cli("train", *evaluated, "run_dir=run", setting)
    assert outcome.status == 2, outcome.err
    assert said in outcome.err
    assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("cost", [1.0, 40.0, 1000.0])
def test_the_share_is_kept_and_no_rarer_than_it_asks_for(cost: float, share: float) -> None:
    def taken(times: int) -> float:
        return cost / (cost + times * 100.0)

    times = periods(cost, 100.0, share)
    assert taken(times) <= share + 1e-12
    assert times == 1 or taken(times - 1) > share
    assert periods(cost, 100.0, 0.0) == 1
