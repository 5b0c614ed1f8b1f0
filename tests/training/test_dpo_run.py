"""A run of preference tuning: resumed exactly, from a cached reference, with LoRA, and refused in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pairs of answers of unequal length."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    records = [{"prompt": f"p{i}", "chosen": "the cat" + "s" * (i % 4), "rejected": "dog"} for i in range(20)]
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[str, ...], tiny_run: Path, pairs_file: Path) -> Any:
    """Settings of a run from the tiny one's weights on these pairs."""
    template = tmp_path_factory.mktemp("template") / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}:{% endfor %}")
    of_the_run = [s for s in tiny if not s.startswith(("model.", "data", "tokenizer", "callbacks"))]
    return (
        *of_the_run, "task=dpo", f"data.path={pairs_file}", f"model.weights={tiny_run}", "model.params.dropout=0.1",
        f"task.template_file={template}", "task.beta=0.5", "trainer.batch_size=3", "data.val_fraction=0.2",
    )  # fmt: skip


@pytest.mark.parametrize("adapter", ["none", pytest.param("lora", marks=pytest.mark.nightly)])
def test_a_run_in_parts_is_the_run(
    invoke: Any, run: tuple[str, ...], tmp_path: Path, metrics_of: Any, cache_dir: Path, adapter: str
) -> None:
    """Weights and figures; a second run finds the reference in the cache, a resumed one in its run."""
    command = ("train", *run, f"adapter={adapter}", "trainer.global_batch_size=6")
    outcome = invoke(tmp_path, *command, "run_dir=whole")
    assert outcome.status == 0, outcome.err
    assert "before training, validation: chosen answers" in outcome.err
    outcome = invoke(tmp_path, *command, "run_dir=parts", "stop_after=3")
    assert "reference log-probabilities of" not in outcome.err, "the cache was not used"
    for cached in (cache_dir / "references").glob("*.safetensors"):
        cached.unlink()
    outcome = invoke(tmp_path, "train", "resume=parts")
    assert outcome.status == 0, outcome.err
    assert metrics_of(tmp_path / "parts") == metrics_of(tmp_path / "whole")
    kept, last = (load_file(tmp_path / name / "model/model.safetensors") for name in ("parts", "whole"))
    assert all(torch.equal(kept[name], last[name]) for name in last)
    rows = metrics_of(tmp_path / "whole")
    assert float(rows[-1]["val/margin"]) > 0
    assert {"val/accuracy", "val/reward_chosen", "val/log_prob_chosen", "train/likelier"} <= rows[-1].keys()
    assert json.loads((tmp_path / "whole/run.json").read_text())["data"]["train"] == 16
    assert invoke(tmp_path, "reproduce", "run=parts").status == 0
    (tmp_path / "parts/reference.safetensors").unlink()
    outcome = invoke(tmp_path, "train", "resume=parts", "trainer.max_steps=8", "scheduler.on_extend=hold")
    assert (outcome.status, "reference.safetensors is missing" in outcome.err) == (2, True)


@pytest.mark.nightly
def test_a_damaged_cache_is_made_again(invoke: Any, run: tuple[str, ...], tmp_path: Path, cache_dir: Path) -> None:
    """One flipped bit of a number, which the format itself cannot see, or an end cut off; a kept one is refused."""
    command = ("train", *run, "trainer.max_steps=1")
    assert invoke(tmp_path, *command, "run_dir=first").status == 0
    kept = tmp_path / "first/reference.safetensors"
    for damage, found in (
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "its checksum is another"),
        (lambda content: content[:-5], "is damaged ("),
    ):
        for file in [kept, *(cache_dir / "references").glob("*.safetensors")]:
            file.write_bytes(damage(file.read_bytes()))
        outcome = invoke(tmp_path, *command, f"run_dir=next{len(found)}")
        assert outcome.status == 0, outcome.err
        assert found in outcome.err
        assert "made again" in outcome.err
        assert "reference log-probabilities of" in outcome.err
    again = invoke(tmp_path, *command, "run_dir=again")
    assert (again.status, "made again" in again.err) == (0, False)
    outcome = invoke(tmp_path, "train", "resume=first", "trainer.max_steps=2")
    assert (outcome.status, "restore it, or start a new run" in outcome.err) == (2, True)


@pytest.mark.nightly
def test_the_batch_it_is_cut_into_changes_nothing(
    invoke: Any, run: tuple[str, ...], tmp_path: Path, metrics_of: Any
) -> None:
    """Six pairs at once or two at a time: every pair weighs the same, whatever its length."""
    losses = []
    for size in (6, 2):
        more = ("trainer.global_batch_size=6", f"trainer.batch_size={size}")
        outcome = invoke(tmp_path, "train", *run, *more, f"run_dir=by{size}", "task.sft_weight=0.3")
        assert outcome.status == 0, outcome.err
        rows = metrics_of(tmp_path / f"by{size}")
        losses.append([float(row["train/loss"]) for row in rows])
        of_chosen = -0.3 * float(rows[0]["train/log_prob_chosen"])
        assert losses[-1][0] - of_chosen == pytest.approx(math.log(2), abs=1e-4), "the model is its own reference"
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.nightly
def test_dropout_is_off(invoke: Any, run: tuple[str, ...], tmp_path: Path, metrics_of: Any) -> None:
    """A model with dropout was compared with a reference without: the first loss, before any step, was not ln 2."""
    for adapter, more in (("none", ()), ("lora", ("adapter.dropout=0.5", "model.params.dropout=0.0"))):
        folder = tmp_path / adapter
        folder.mkdir()
        outcome = invoke(folder, "train", *run, f"adapter={adapter}", *more, "trainer.max_steps=1", "run_dir=run")
        assert outcome.status == 0, outcome.err
        assert "task=dpo: dropout is off" in outcome.err
        first = metrics_of(folder / "run")[0]
        assert float(first["train/loss"]) == pytest.approx(math.log(2), abs=2e-6)
        assert abs(float(first["train/margin"])) < 1e-5


@pytest.mark.parametrize("loss", ["ipo", "orpo", "simpo"])
def test_the_other_losses(invoke: Any, run: tuple[str, ...], tmp_path: Path, metrics_of: Any, loss: str) -> None:
    outcome = invoke(tmp_path, "train", *run, f"task.loss={loss}", "run_dir=run")
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "run/reference.safetensors").exists() == (loss == "ipo")
    rows = metrics_of(tmp_path / "run")
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ("data=text", "data.path=README.md"),
            "task=dpo needs pairs of answers (data=pairs data.path=…); data.kind is",
        ),
        (("task.gamma=1.0",), "unknown key 'task.gamma' (allowed under 'task': beta, label_smoothing)"),
        (("data.seq_len=4",), "data.path: no pair is left (pairs longer than data.seq_len, left out: "),
        (
            ("task=pretrain", "data=pairs"),
            "data=pairs holds pairs of answers, not running text; train on them with task=dpo",
        ),
        (("tokenizer=byte",), "task=dpo takes the tokenizer of model.weights; leave tokenizer out"),
    ],
)
def test_what_does_not_go_together(run_cli: Any, run: tuple[str, ...], changes: tuple[str, ...], message: str) -> None:
    keys = {change.partition("=")[0] for change in changes}
    kept = [setting for setting in run if setting.partition("=")[0] not in keys]
    if "task" in keys:
        kept = [setting for setting in kept if not setting.startswith("task")]
    outcome = run_cli("train", *kept, *changes)
    assert outcome.status == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_weights_are_needed(run_cli: Any, run: tuple[str, ...]) -> None:
    settings = [setting for setting in run if not setting.startswith("model.")]
    outcome = run_cli("train", *settings, "model.params.max_seq_len=16")
    assert (outcome.status, "task=dpo tunes weights that exist" in outcome.err) == (2, True)


def test_pairs_are_no_text(run_cli: Any, pairs_file: Path) -> None:
    pairs = ("data=pairs", f"data.path={pairs_file}", "data.seq_len=16")
    outcome = run_cli("prepare", "out=store", "tokenizer=byte", *pairs)
    said = "data=pairs holds pairs of answers, which have no running text to prepare; train on them with task=dpo"
    assert (outcome.status, said in outcome.err, "Traceback" in outcome.err) == (2, True, False), outcome.err
