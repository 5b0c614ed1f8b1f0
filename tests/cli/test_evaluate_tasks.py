"""slm-evaluate on conversations and on pairs: the figures of training, and those of any model that chats."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

TEMPLATE = "{% for m in messages %}{{ m['content'] }}:{% endfor %}"


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations of unequal length."""
    file = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    records = [{"prompt": f"say {i % 7}", "response": "x" * (i % 5 + 1)} for i in range(40)]
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory, invoke: Any, tiny: tuple[str, ...], talks: Path) -> Path:
    """A run of instruction tuning, to be read only."""
    folder = tmp_path_factory.mktemp("sft")
    kept = [s for s in tiny if not s.startswith(("data", "callbacks", "model.params.max_seq_len"))]
    own = ["task=sft", f"data.path={talks}", "model.params.max_seq_len=96", "task.max_answer_tokens=6"]
    outcome = invoke(folder, "train", *kept, *own, "data.val_fraction=0.3", "run_dir=run")
    assert outcome.status == 0, outcome.err
    return folder / "run"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pairs of answers of unequal length."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    records = [{"prompt": f"p{i}", "chosen": "the cat" + "s" * (i % 4), "rejected": "dog"} for i in range(20)]
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def preferring(
    tmp_path_factory: pytest.TempPathFactory, invoke: Any, tiny: tuple[str, ...], tiny_run: Path, pairs: Path
) -> Path:
    """A run of preference tuning from the tiny one's weights, to be read only."""
    folder = tmp_path_factory.mktemp("dpo")
    (folder / "chat.jinja").write_text(TEMPLATE)
    of_the_run = [s for s in tiny if not s.startswith(("model.", "data", "tokenizer", "callbacks"))]
    own = ["task=dpo", f"data.path={pairs}", f"model.weights={tiny_run}", "task.template_file=chat.jinja"]
    outcome = invoke(folder, "train", *of_the_run, *own, "data.val_fraction=0.2", "run_dir=run")
    assert outcome.status == 0, outcome.err
    return folder / "run"


def figures_of(outcome: Any) -> dict[str, Any]:
    assert outcome.status == 0, outcome.err
    (line,) = outcome.out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_chat_run_is_scored_and_answers_as_it_did_itself(run_cli: Any, chatting: Path, tmp_path: Path) -> None:
    """Loss on responses whatever the batch and packing; the very answers of training, at its best step."""
    summary = json.loads((chatting / "summary.json").read_text())
    for settings in (["batch_size=3"], ["task.packing=false"]):
        figures = figures_of(run_cli("evaluate", f"run={chatting}", *settings))
        assert figures["loss"] == pytest.approx(summary["best_val_loss"], abs=1e-5)
        assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
        assert "exact_match" not in figures
    figures = figures_of(run_cli("evaluate", f"run={chatting}", "answers=all", "out=answers.jsonl"))
    written = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert written == [json.loads(line) for line in (chatting / "answers.jsonl").read_text().splitlines()]
    assert figures["answered"] == figures["samples"] == len(written) > 8
    assert figures["exact_match"] == sum(answer["exact"] for answer in written) / len(written)
    both = figures_of(run_cli("evaluate", f"run={chatting}", "split=all", "answers=2", "out=two.json"))
    assert both["samples"] == 40
    assert len(json.loads((tmp_path / "two.json").read_text())) == both["answered"] == 2


def test_quantized_it_loses_little(run_cli: Any, chatting: Path, preferring: Path) -> None:
    """Heads without a plain matrix score conversations and pairs, too."""
    figures = figures_of(run_cli("evaluate", f"run={chatting}", "quantize=int8", "answers=2"))
    assert 0 < abs(figures["loss_change"]) < 0.05
    figures = figures_of(run_cli("evaluate", f"run={preferring}", "quantize=int8"))
    assert 0 < abs(figures["loss_change"]) < 0.05


def test_a_preference_run_is_scored_beside_what_it_kept_of_its_reference(
    run_cli: Any, preferring: Path, tiny_run: Path, metrics_of: Any
) -> None:
    """As training's last validation; the weights it began with say the same."""
    last = metrics_of(preferring)[-1]
    kept = figures_of(run_cli("evaluate", f"run={preferring}", "batch_size=3"))
    given = figures_of(run_cli("evaluate", f"run={preferring}", f"reference={tiny_run}"))
    assert (kept["reference"], given["reference"], kept["pairs"]) == ("kept by the run", "given", 4)
    for name in ("loss", "accuracy", "margin", "log_prob_chosen", "log_prob_rejected", "likelier"):
        assert kept[name] == pytest.approx(float(last[f"val/{name}"]), abs=1e-5), name
        assert given[name] == pytest.approx(kept[name], abs=1e-5), name
    every = figures_of(run_cli("evaluate", f"run={preferring}", "split=all"))
    train = figures_of(run_cli("evaluate", f"run={preferring}", "split=train"))
    assert every["pairs"] == train["pairs"] + kept["pairs"] == 20
    assert every["margin"] * 20 == pytest.approx(train["margin"] * 16 + kept["margin"] * 4, abs=1e-4)
    assert every["reference"] == "kept by the run"


def test_a_model_that_chats_is_scored_on_either(run_cli: Any, chatting: Path, talks: Path, pairs: Path) -> None:
    """Of whatever training it comes; on pairs it has no reference, and its own likelihoods are the rewards."""
    bundle = f"model_dir={chatting / 'model'}"
    own = figures_of(run_cli("evaluate", f"run={chatting}", "split=all"))
    other = figures_of(run_cli("evaluate", bundle, "data=instructions", f"data.path={talks}", "split=all"))
    assert other["loss"] == pytest.approx(own["loss"], abs=1e-5)
    found = figures_of(run_cli("evaluate", f"run={chatting}", "data=pairs", f"data.path={pairs}", "split=all"))
    assert (found["loss_kind"], found["reference"]) == ("likelihood", "none")
    assert found["accuracy"] == found["likelier"]
    assert found["loss"] == pytest.approx(-found["log_prob_chosen"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["answers=all", "out=there.jsonl"], "'there.jsonl' is there already"),
        (["out=new.jsonl"], "say how many: answers=all"),
        (["answers=2", "out=new.txt"], "should end in .jsonl or .json"),
        (["answers=some"], "answers: should be a number, or all"),
        (["task.packin=false"], "did you mean 'packing'"),
        (["reference=x"], "only pairs"),
        (["data=text", "data.path=there.jsonl", "answers=2"], "only conversations"),
    ],
)
def test_a_mistake_is_a_line(run_cli: Any, chatting: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "there.jsonl").write_text("some words of a text\n" * 20)
    outcome = run_cli("evaluate", f"run={chatting}", *arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_model_without_a_template_says_so(run_cli: Any, tiny_run: Path, talks: Path) -> None:
    outcome = run_cli("evaluate", f"run={tiny_run}", "data=instructions", f"data.path={talks}")
    assert (outcome.status, "no chat template" in outcome.err) == (2, True)
