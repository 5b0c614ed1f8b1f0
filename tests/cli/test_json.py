"""``json=true``: one object on stdout, with the documented fields, and nothing else; errors and statuses too."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from documented_json import FILE, differences, documented
from test_commands import COMMANDS

from slm.cli.command import INTERRUPTED_STATUS, STOPPED_STATUS, USER_ERROR_STATUS
from slm.cli.result import Result

OWN_PRINT = (
    "import pytorch_lightning as pl\n"
    "class Talking(pl.Callback):\n"
    "    def on_train_batch_end(self, trainer, *args):\n"
    "        print('a step')\n"
    "        trainer.should_stop = trainer.global_step == 4\n"
)


def test_a_document_is_read_whole() -> None:
    """The mechanism: each row, its types, and what an object has too much, too little or of another type."""
    fields = {field.name: field for field in documented("slm-train")}
    assert fields["best_step"].types == (int, type(None))
    assert (fields["val_*"].is_optional, fields["run_dir"].is_optional) == (True, False)
    rows = [
        line
        for line in FILE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `") and "slm-" not in line[:9]
    ]
    sections = [line[3:] for line in FILE.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    assert sum(len(documented(section)) for section in sections) == len(rows), "a row that the tests do not read"
    assert differences("slm-crawl", '{"file": "a", "bytes": "3", "more": 1}') == [
        "bytes is '3', documented as (<class 'int'>,)",
        "more is not documented",
        "sha256 is missing",
    ]
    whole = {"prompt": "a", "completions": [{"completion": 1}]}
    assert "completions[].completion is 1, documented as (<class 'str'>,)" in differences(
        "slm-generate", json.dumps(whole)
    )
    assert "completions[].new_tokens is missing" in differences("slm-generate", json.dumps(whole))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_section(name: str) -> None:
    assert documented(name)


def test_numbers_that_json_has_no_word_for() -> None:
    assert (
        Result({"a": math.nan, "b": [math.inf, {"c": 1.5}]}).text(as_json=True)
        == '{"a": null, "b": [null, {"c": 1.5}]}'
    )
    assert Result({"loss": 1.5, "split": "val"}).text(as_json=False) == "loss   1.5\nsplit  val"


def test_train(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback that prints, and stops: what it says goes to stderr."""
    (tmp_path / "talking_callback.py").write_text(OWN_PRINT)
    monkeypatch.syspath_prepend(tmp_path)
    own = "+callbacks.talking._target_=talking_callback.Talking"
    outcome = run_cli("train", *tiny, "run_dir=run", "json=true", own)
    assert (outcome.status, differences("slm-train", outcome.out)) == (0, []), outcome.err
    found = json.loads(outcome.out)
    assert (found["run_dir"], found["state"], found["step"], found["max_steps"]) == ("run", "stopped", 4, 6)
    assert outcome.err.count("a step\n") == 4
    assert "json" not in (tmp_path / "run/config.yaml").read_text()
    again = run_cli("train", "resume=run", "~callbacks.talking")
    assert (again.status, again.out) == (0, "run\n"), "json=true is of one command, not of the run"


def test_nothing_left_to_do(tiny_run: Path, run_cli: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    outcome = run_cli("train", "resume=auto", "run_dir=run", "json=true")
    assert "nothing is left to do" in outcome.err
    assert (differences("slm-train", outcome.out), json.loads(outcome.out)["state"]) == ([], "done")


def test_a_branch_says_where_it_began(tiny_run: Path, run_cli: Any) -> None:
    outcome = run_cli(
        "train", f"from_step={tiny_run}@40", "run_dir=branch", "trainer.max_steps=42", "scheduler=constant", "json=true"
    )
    assert (outcome.status, differences("slm-train", outcome.out)) == (0, []), outcome.err
    assert json.loads(outcome.out)["parent"]["step"] == 40


def test_of_a_finished_run(tiny_run: Path, run_cli: Any, tmp_path: Path) -> None:
    """Evaluation, generation from a prompt and of a file, conversion, the run made again."""
    (tmp_path / "prompts.txt").write_text("the \ncat\n")
    run = f"run={tiny_run}"
    for command, *arguments in (
        ("evaluate", run),
        ("generate", run, "prompt=the ", "generation.max_new_tokens=2", "generation.n=2", "json=true"),
        ("generate", run, "prompt=the ", "generation.max_new_tokens=2", "show=probabilities", "json=true"),
        ("generate", run, "prompts=prompts.txt", "generation.max_new_tokens=2", "json=true"),
        ("generate", run, "prompts=prompts.txt", "generation.max_new_tokens=2", "out=answers", "json=true"),
        ("convert", f"source={tiny_run}", "out=bundle"),
        ("reproduce", run, "json=true"),
    ):
        outcome = run_cli(command, *arguments)
        assert (outcome.status, differences(f"slm-{command}", outcome.out)) == (0, []), (command, outcome.err)
    lines = run_cli("evaluate", run, "json=false").out.splitlines()
    assert lines[0].split() == ["model", str(tiny_run)]


def test_prepare(run_cli: Any, text_file: Path) -> None:
    outcome = run_cli("prepare", "data=text", f"data.path={text_file}", "tokenizer=byte", "out=store")
    assert (outcome.status, differences("slm-prepare", outcome.out)) == (0, []), outcome.err


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("train", ("trainer.max_step=3",), "unknown key 'trainer.max_step'; did you mean 'trainer.max_steps'?"),
        ("train", ("optimizer.lr=-1",), "optimizer.lr"),
        ("generate", ("model_dir=nowhere",), "json=true has no interactive prompt; give prompt=TEXT or prompts=FILE"),
        ("evaluate", ("run=nowhere",), "'nowhere'"),
        ("reproduce", ("run=nowhere",), "run: 'nowhere' is no run folder"),
    ],
)
def test_a_mistake(run_cli: Any, command: str, arguments: tuple[str, ...], said: str) -> None:
    outcome = run_cli(command, *arguments, "json=true")
    assert (outcome.status, differences("An error", outcome.out)) == (USER_ERROR_STATUS, [])
    found = json.loads(outcome.out)
    assert found["status"] == USER_ERROR_STATUS
    assert said in found["error"]
    assert found["error"].splitlines()[0] in outcome.err


def test_the_object_comes_last(tmp_path: Path) -> None:
    """``2>&1 | tail -n 1`` has it, in a shell."""
    script = Path(sys.executable).with_name("slm-train")
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    answer = subprocess.run([script, "trainer.max_step=3", "json=true"], **both, text=True, cwd=tmp_path, timeout=60)
    first, *_, last = answer.stdout.splitlines()
    assert first.startswith("slm-train: unknown key")
    assert json.loads(last)["status"] == answer.returncode == USER_ERROR_STATUS


def test_json_is_true_or_false(run_cli: Any) -> None:
    outcome = run_cli("reproduce", "run=nowhere", "json=yes please")
    assert (outcome.status, outcome.out) == (USER_ERROR_STATUS, "")
    assert "json" in outcome.err


def test_a_bug_has_its_object_too(
    run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """And its traceback, which Python prints."""
    (tmp_path / "breaking_off.py").write_text(OWN_PRINT.replace("print('a step')", "raise RuntimeError('mine')"))
    monkeypatch.syspath_prepend(tmp_path)
    printed: list[str] = []
    monkeypatch.setattr("slm.cli.command.print", lambda text, **_: printed.append(text), raising=False)
    with pytest.raises(RuntimeError, match="the run broke off in step 2"):
        run_cli("train", *tiny, "run_dir=run", "json=true", "+callbacks.broken._target_=breaking_off.Talking")
    assert differences("An error", printed[0]) == []
    assert json.loads(printed[0])["status"] == 1


def test_statuses_are_those_of_the_document() -> None:
    """Each that the code knows has its row, and no other."""
    section = FILE.read_text(encoding="utf-8").partition("## Exit statuses")[2].partition("\n## ")[0]
    rows = [int(line.split("|")[1]) for line in section.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert rows == [0, 1, USER_ERROR_STATUS, STOPPED_STATUS, INTERRUPTED_STATUS]
