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
        (("run=RUN", "split=tset"), "did you mean 'test'?"),
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


def figures_of(outcome: Any) -> dict[str, Any]:
    assert outcome.status == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def test_a_test_part_is_scored_whole(run_cli: Any, tiny_run: Path, tmp_path: Path) -> None:
    """As its file is by itself, however the part is known: a path, a name, a size, a token store. Of a test file the
    last tenth was scored."""
    train, test = "the cat sat on the mat. " * 30, "a dog ran from the old house " * 9
    (tmp_path / "d").mkdir()
    (tmp_path / "d/train.txt").write_text(train)
    (tmp_path / "d/test.txt").write_text(test)
    (tmp_path / "both.txt").write_text(train + test)
    run = f"run={tiny_run}"
    alone = figures_of(run_cli("evaluate", run, "data=text", "data.path=d/test.txt", "split=all"))
    assert (alone["tokens"], alone["bytes"], alone["scored_tokens"]) == (len(test), len(test), len(test) - 1)
    assert alone["bits_per_byte"] == pytest.approx(alone["loss"] / math.log(2))
    by_size = f"data.test_bytes={len(test)}"
    ways = (
        ("data=text", "data.path=d/train.txt", "data.test_path=d/test.txt"),
        ("data=text", "data.path=d"),
        ("data=text", "data.path=both.txt", by_size),
    )
    for i, way in enumerate(ways):
        figures = figures_of(run_cli("evaluate", run, *way, "split=test"))
        same = ("loss", "bits_per_byte", "tokens", "bytes", "scored_tokens", "scored_bytes")
        assert {key: figures[key] for key in same} == {key: alone[key] for key in same}
        assert (figures["split"], figures["documents"]) == ("test", 1)
        made = figures_of(run_cli("prepare", *way, "tokenizer=byte", f"out=store{i}"))
        assert made["test"] == {"documents": 1, "bytes": len(test), "tokens": len(test)}
        again = figures_of(run_cli("evaluate", run, "data=prepared", f"data.path=store{i}", "split=test"))
        assert again["loss"] == alone["loss"]
    whole = figures_of(run_cli("evaluate", run, "data=prepared", "data.path=store0", "split=all"))
    assert (whole["tokens"], whole["bytes"]) == (len(train + test),) * 2
    assert figures_of(run_cli("evaluate", run, "data.test_path=d/test.txt", "split=test"))["loss"] == alone["loss"]
    run_cli("prepare", "data=text", "data.path=both.txt", "tokenizer=byte", "out=two")
    refused = ((), "has no test part"), (("data=prepared", "data.path=two"), "'two' has no such part")
    for data, said in refused:
        outcome = run_cli("evaluate", run, *data, "split=test")
        assert (outcome.status, len(outcome.err.splitlines())) == (2, 1)
        assert said in outcome.err
        assert "split=all" in outcome.err


MIXED = (
    "data=mixture",
    "+data@data.parts.a=text",
    "+data@data.parts.b=text",
    "+data.parts.a.weight=3",
    "data.parts.a.path=a",
    "data.parts.b.path=b.txt",
    "data.parts.b.test_bytes=100",
)


def test_a_mixture_is_prepared(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, metrics_of: Any) -> None:
    """``Interpolation key … not found``, and then a refusal. A run on the store is the run on the mixture, and each
    part has its lines; `test` and `all` are scored on either."""
    (tmp_path / "a").mkdir()
    for name, words in (("train", "the cat sat on the mat " * 60), ("valid", "a dog "), ("test", "from the sea " * 5)):
        (tmp_path / f"a/{name}.txt").write_text(words)
    (tmp_path / "b.txt").write_text("def f(x):\n    return x\n" * 60)
    others = [setting for setting in tiny if not setting.startswith(("data", "tokenizer"))]
    made = run_cli("prepare", *MIXED, "tokenizer=simple", "out=mixed")
    parts = figures_of(made)["parts"]
    assert [parts["a"][split]["bytes"] for split in ("train", "val", "test")] == [23 * 60, 6, 65]
    assert parts["b"]["test"]["bytes"] == 100
    lines = made.err.splitlines()
    assert [line.split() for line in lines if line.startswith(("train.txt", "valid.txt", "b.txt"))] == [
        ["train.txt", "text", "1", "1", "1,380"],
        ["valid.txt", "(validation)", "text", "1", "1", "6"],
        ["b.txt", "text", "1", "1", "1,380"],
    ]
    direct = run_cli("train", *others, *MIXED, "tokenizer=simple", "run_dir=direct")
    ahead = run_cli("train", *others, "data=prepared", "data.path=mixed", "run_dir=ahead")
    assert (direct.status, ahead.status) == (0, 0), ahead.err
    assert metrics_of(tmp_path / "ahead") == metrics_of(tmp_path / "direct")
    for split, n_bytes in (("test", 165), ("all", 1380 + 6 + 65 + 1380)):
        scored = [figures_of(run_cli("evaluate", f"run={run}", f"split={split}")) for run in ("direct", "ahead")]
        assert (
            scored[0]["loss"]
            == scored[1]["loss"]
            == pytest.approx(0.75 * scored[0]["loss/a"] + 0.25 * scored[0]["loss/b"], rel=1e-9)
        )
        assert [of["bytes"] for of in scored] == [n_bytes] * 2
    again = run_cli("prepare", "data=mixture", "+data@data.parts.a=prepared", "+data@data.parts.b=prepared",
                    "data.parts.a.path=mixed/part_0", "data.parts.b.path=mixed/part_1", "out=copied")  # fmt: skip
    assert figures_of(again)["parts"] == parts
