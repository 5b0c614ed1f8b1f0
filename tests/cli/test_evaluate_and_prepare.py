"""slm-evaluate and slm-prepare: results on stdout as JSON, and the same numbers as training's own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import slm


def test_a_run_is_scored_as_it_scored_itself(run_cli: Any, tiny_run: Path, text_file: Path) -> None:
    """On its own validation split, whatever the batch; every figure follows from the loss."""
    outcome = run_cli("evaluate", f"run={tiny_run}", "batch_size=7")
    assert outcome.status == 0, outcome.err
    (line,) = outcome.out.splitlines()
    figures = json.loads(line)
    summary = json.loads((tiny_run / "summary.json").read_text())
    assert figures["loss"] == pytest.approx(summary["best_val_loss"], abs=1e-5)
    assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
    assert figures["bits_per_byte"] == pytest.approx(figures["loss"] / math.log(2))  # a byte a token
    assert {k: figures[k] for k in ("model", "split", "tokens", "bytes", "documents", "seq_len")} == {
        "model": str(tiny_run), "split": "val", "tokens": 2000, "bytes": 2000, "documents": 1, "seq_len": 16,
    }  # fmt: skip


def test_on_other_data(run_cli: Any, tiny_run: Path, tmp_path: Path) -> None:
    """With a group chosen anew, or with single settings of the run's own data changed; a bundle needs the former."""
    (tmp_path / "other.txt").write_text("a dog ran from the sea " * 40)
    run, bundle = f"run={tiny_run}", f"model_dir={tiny_run / 'model'}"
    chosen = ["data=text", "data.path=other.txt"]
    outcomes = [
        run_cli("evaluate", *arguments)
        for arguments in ([run, *chosen], [run, "data.path=other.txt"], [bundle, *chosen])
    ]
    losses = {json.loads(outcome.out)["loss"] for outcome in outcomes}
    assert len(losses) == 1
    shorter = json.loads(run_cli("evaluate", run, "data.seq_len=8").out)
    assert (shorter["seq_len"], shorter["tokens"]) == (8, 2000)
    train = json.loads(run_cli("evaluate", run, "split=train").out)
    assert train["tokens"] == 18000


def test_a_whole_text_is_scored(run_cli: Any, tiny_run: Path, tmp_path: Path) -> None:
    """It was refused, so of a test file its last tenth was scored. Here by torch alone, from the model's logits."""
    text = "a dog ran from the sea " * 40
    (tmp_path / "test.txt").write_text(text)
    outcome = run_cli("evaluate", f"run={tiny_run}", "data=text", "data.path=test.txt", "split=all")
    assert outcome.status == 0, outcome.err
    figures = json.loads(outcome.out)
    assert (figures["split"], figures["tokens"], figures["bytes"]) == ("all", len(text), len(text))
    ids, model = torch.tensor(list(text.encode())), slm.load(tiny_run, device="cpu").model
    nats = 0.0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, 16):
            window = ids[start : start + 17]
            logits = model(window[None, :-1])[0].double().log_softmax(-1)
            nats -= float(logits[torch.arange(len(window) - 1), window[1:]].sum())
    assert figures["loss"] == pytest.approx(nats / (len(ids) - 1), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no model was named"),
        (("run=missing",), "there is no folder 'missing'"),
        (("model_dir=BUNDLE",), "data is missing: the model does not say what to evaluate on"),
        (("run=RUN", "split=test"), "split should be 'train', 'val' or 'all'; got 'test'"),
        (("run=RUN", "batch_size=0"), "batch_size should be greater than 0; got 0"),
        (("run=RUN", "precision=31"), "precision: there is no '31'"),
        (("run=RUN", "data.seq_len=64"), "data.seq_len (64) must be at most the model's 16"),
        (("run=RUN", "data.sqe_len=8"), "unknown key 'data.sqe_len'"),
        (("run=RUN", "data=text"), "data.path is missing; set it: data.path=…"),
        (("run=RUN", "splt=val"), "did you mean 'split'?"),
    ],
)
def test_mistakes_of_evaluate(run_cli: Any, tiny_run: Path, arguments: tuple[str, ...], message: str) -> None:
    given = [a.replace("RUN", str(tiny_run)).replace("BUNDLE", str(tiny_run / "model")) for a in arguments]
    outcome = run_cli("evaluate", *given)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_sixteen_bits_say_what_they_became(run_cli: Any, tiny_run: Path) -> None:
    outcome = run_cli("evaluate", f"run={tiny_run}", "precision=16")
    assert "precision bf16-mixed (16 was asked for, but fp16 needs a GPU" in outcome.err


def test_prepared_data_trains_alike(
    run_cli: Any, tiny: tuple[str, ...], text_file: Path, tmp_path: Path, metrics_of: Any
) -> None:
    """The store made ahead holds what training would have made itself; its tokenizer comes with it."""
    outcome = run_cli("prepare", "data=text", f"data.path={text_file}", "tokenizer=simple", "out=stores/words")
    assert outcome.status == 0, outcome.err
    figures = json.loads(outcome.out)
    assert (figures["out"], figures["train"]["tokens"], figures["val"]["tokens"]) == ("stores/words", 18000, 2000)
    others = [setting for setting in tiny if not setting.startswith(("data", "tokenizer"))]
    direct = run_cli("train", *others, "data=text", f"data.path={text_file}", "tokenizer=simple", "run_dir=direct")
    ahead = run_cli("train", *others, "data=prepared", "data.path=stores/words", "run_dir=ahead")
    assert (direct.status, ahead.status) == (0, 0), ahead.err
    assert metrics_of(tmp_path / "ahead") == metrics_of(tmp_path / "direct")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "out is missing; set it: out=…"),
        (("out=there", "data=text", "data.path=words.txt"), "'there' exists already; remove it or name another folder"),
        (("out=new", "data=text"), "data.path is missing"),
        (("out=new", "data=text", "data.path=missing"), "there is no file or folder 'missing'"),
        (("out=new", "data=prepared", "data.path=there"), "is a token store already"),
        (("out=new", "data=mixture"), "data.parts names 0 corpora, and a mixture takes two or more"),
        (
            ("out=new", "data=mixture", "+data@data.parts.a=python_stdlib", "+data@data.parts.b=python_stdlib"),
            "data=mixture is put together by slm-train; prepare each part",
        ),
        (("out=new", "+model.params.max_seq_len=8"), "unknown key 'model'"),
        (("out=words.txt/new", "data=text", "data.path=words.txt"), "cannot make the folder 'words.txt'"),
        (("out=new", "data=text", "data.path=words.txt", "tokenizer=byte", "tokenizer.vocab=3"), "unknown key"),
    ],
)
def test_mistakes_of_prepare(run_cli: Any, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "words.txt").write_text("words " * 50)
    outcome = run_cli("prepare", *arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert {entry.name for entry in tmp_path.iterdir()} == {"there", "words.txt"}
