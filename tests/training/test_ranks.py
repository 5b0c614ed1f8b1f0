"""Two ranks learn what one learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def test_two_ranks_are_one(
    train_tiny: Any, tiny: tuple[str, ...], cache_dir: Path, tmp_path: Path, metrics_of: Any
) -> None:
    """Same windows a step, same losses; validation is exact over both, each file written once.

    As a user starts it: Lightning starts the second rank with the same command line, which must mean
    the same there. It once had the path quoted twice, found no such file, and Lightning killed the run.
    A run of one rank goes on with two.
    """
    data = tmp_path / "two words, {odd}.txt"
    data.write_text(Path(tiny[1].partition("=")[2]).read_text())
    changes = ("trainer.global_batch_size=8", "trainer.max_steps=8", f"data.path={data}")
    one = train_tiny("one", *changes)
    train_tiny("two", *changes, "stop_after=4")
    outcome = subprocess.run(
        [Path(sys.executable).with_name("slm-train"), "resume=two", "trainer.devices=2"],
        cwd=tmp_path,
        env={**os.environ, "SLM_CACHE_DIR": str(cache_dir)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "two\n"
    assert outcome.stderr.count("run folder two, resumed at step 4") == 1
    two, expected = metrics_of(tmp_path / "two"), metrics_of(one)
    assert [row["step"] for row in two] == [row["step"] for row in expected]
    for row, other in zip(two, expected, strict=True):
        assert row["train/tokens"] == other["train/tokens"]
        for name in ("train/loss", "val/loss"):
            if other[name]:
                assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-5), (row["step"], name)


@pytest.mark.nightly
@pytest.mark.parametrize("task", ["text", "pairs"])
def test_fewer_windows_than_ranks(
    invoke: Any, tiny: tuple[str, ...], tiny_run: Path, cache_dir: Path, tmp_path: Path, metrics_of: Any, task: str
) -> None:
    """A validation of one window, or pair, leaves nothing for the second rank: Lightning ended such runs."""
    kept = [setting for setting in tiny if not setting.startswith(("data", "trainer.devices"))]
    if task == "text":
        more = ["data=text", tiny[1], "data.val_fraction=0.0005"]
    else:
        pairs = [{"prompt": f"p{i}", "chosen": "the cat", "rejected": "dog"} for i in range(9)]
        (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
        (tmp_path / "chat.jinja").write_text("{% for m in messages %}{{ m['content'] }}:{% endfor %}")
        kept = [setting for setting in kept if not setting.startswith(("model.", "tokenizer", "callbacks"))]
        more = ["task=dpo", "data.path=pairs.jsonl", "data.val_fraction=0.01", f"model.weights={tiny_run}"]
        more += ["task.template_file=chat.jinja"]
    command = [*kept, *more, "trainer.global_batch_size=8", "trainer.max_steps=3"]
    outcome = invoke(tmp_path, "train", *command, "trainer.devices=1", "run_dir=one")
    assert outcome.status == 0, outcome.err
    done = subprocess.run(
        [Path(sys.executable).with_name("slm-train"), *command, "trainer.devices=2", "run_dir=two"],
        cwd=tmp_path, env={**os.environ, "SLM_CACHE_DIR": str(cache_dir)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [
        {name: float(value) for name, value in metrics_of(tmp_path / run)[-1].items() if value}
        for run in ("one", "two")
    ]
    validated = [name for name in rows[0] if name.startswith("val/")]
    assert len(validated) >= 3
    assert {name: rows[1][name] for name in validated} == pytest.approx({n: rows[0][n] for n in validated}, abs=1e-5)


RECORDING = """
import os
import pytorch_lightning as pl

class Recording(pl.Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        rows = "".join(f"{trainer.global_step} {bytes(row.tolist()).decode()}\\n" for row in batch["input_ids"])
        with open(f"seen_{trainer.global_rank}.txt", "a") as out:
            out.write(rows)
"""


def samples(folder: Path) -> list[list[str]]:
    """What each step was trained on, over all ranks: the text of its windows, in order."""
    steps: dict[int, list[str]] = {}
    for file in folder.glob("seen_*.txt"):
        for line in file.read_text().splitlines():
            step, _, text = line.partition(" ")
            steps.setdefault(int(step), []).append(text)
    return [sorted(steps[step]) for step in range(len(steps))]


@pytest.mark.nightly
def test_one_two_one(
    invoke: Any,
    tiny: tuple[str, ...],
    cache_dir: Path,
    tmp_path: Path,
    metrics_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run is gone on with on two ranks and then on one again, over two epochs: each sample of an epoch is seen once
    in it, none twice, none left out; every step is of the same samples as on one rank, and so is every loss.

    Windows are told apart by their text: a number each; the last one is cut short, and has no bar at its end.
    """
    (tmp_path / "numbers.txt").write_text("".join(f"{number:015d}|" for number in range(1010)))
    (tmp_path / "recording.py").write_text(RECORDING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    settings = [
        *(setting for setting in tiny if not setting.startswith("data.path")),
        f"data.path={tmp_path / 'numbers.txt'}",
        "data.val_fraction=0.208",
        recording := "+callbacks.recording._target_=recording.Recording",
        "trainer.batch_size=10",
        "trainer.global_batch_size=40",
        "trainer.max_steps=40",
        "trainer.val_every=20",
        "trainer.precision=64",
        "run_dir=run",
    ]
    places = {}
    for name in ("straight", "changing"):
        places[name] = tmp_path / name
        places[name].mkdir()
    outcome = invoke(places["straight"], "train", *settings)
    assert outcome.status == 0, outcome.err
    assert invoke(places["changing"], "train", *settings, "stop_after=13").status == 0
    outcome = subprocess.run(
        [Path(sys.executable).with_name("slm-train"), "resume=run", "trainer.devices=2", "stop_after=27", recording],
        cwd=places["changing"],
        env={**os.environ, "SLM_CACHE_DIR": str(cache_dir)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert (places["changing"] / "seen_1.txt").is_file()
    assert invoke(places["changing"], "train", "resume=run", "trainer.devices=1", recording).status == 0

    seen = {name: samples(place) for name, place in places.items()}
    assert seen["changing"] == seen["straight"]
    first, second = (
        sorted(sample for step in epoch for sample in step) for epoch in (seen["changing"][:20], seen["changing"][20:])
    )
    assert first == second
    assert len(first) == len(set(first)) == 800
    rows = {name: {row["step"]: row for row in metrics_of(place / "run")} for name, place in places.items()}
    assert rows["changing"].keys() == rows["straight"].keys()
    for step, row in rows["straight"].items():
        for name in ("train/loss", "val/loss"):
            if row[name]:
                assert abs(float(rows["changing"][step][name]) - float(row[name])) < 1e-6, (step, name)
