"""Bits per byte are of the text that the very labels stand for, in whatever part of a split is scored."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

T, BATCH = 16, 4
LONG, SHORT = "extraordinarily naïveté ", "a b "
BEGINS_LONG = LONG * 100 + "unbekannte Wörter " * 2 + SHORT * 1500  # the first words of it are far longer than the rest
BEGINS_SHORT = SHORT * 100 + LONG * 1500


def file_of(folder: Path, val: str) -> str:
    """Settings of a text whose second half, which is held out, is `val`."""
    file = folder / f"{len(val)}.txt"
    file.write_text(((LONG + SHORT) * len(val))[: len(val)] + val)
    return str(file)


@pytest.fixture
def words(tiny: tuple[str, ...], tmp_path: Path) -> list[str]:
    """A run whose vocabulary is words, some of which it does not know."""
    kept = [setting for setting in tiny if not setting.startswith(("data", "tokenizer"))]
    data = ["data=text", f"data.path={file_of(tmp_path, BEGINS_LONG)}", "data.val_fraction=0.5"]
    return [*kept, *data, "tokenizer=regex", "trainer.max_steps=3"]


def bits(text: str, loss: float, windows: int) -> float:
    """Of the labels of the first windows: every piece of the text but the first, in nats a piece."""
    pieces = re.findall(r"\w+|[^\w\s]|\s+", text)[1 : 1 + windows * T]
    return loss / math.log(2) * len(pieces) / len("".join(pieces).encode())


def last_row(metrics_of: Any, run: Path) -> dict[str, float]:
    return {name: float(value) for name, value in metrics_of(run)[-1].items() if value and name.startswith("val/")}


def test_of_a_cut_validation(invoke: Any, words: list[str], tmp_path: Path, metrics_of: Any) -> None:
    """They were those of the whole split, whose other words are short: off by a factor of three."""
    outcome = invoke(tmp_path, "train", *words, "trainer.limit_val_batches=2", "run_dir=run")
    assert outcome.status == 0, outcome.err
    found = last_row(metrics_of, tmp_path / "run")
    assert found["val/bits_per_byte"] == pytest.approx(bits(BEGINS_LONG, found["val/loss"], 2 * BATCH), rel=1e-5)
    whole = json.loads(invoke(tmp_path, "evaluate", "run=run").out)
    assert whole["bits_per_byte"] == pytest.approx(bits(BEGINS_LONG, whole["loss"], 10**6), rel=1e-6)
    assert (whole["scored_tokens"], whole["scored_bytes"]) == (
        len(re.findall(r"\w+|\s+", BEGINS_LONG)) - 1,  # the first is no label
        len(BEGINS_LONG.encode()) - len("extraordinarily"),
    )


def test_of_each_part_of_a_mixture(invoke: Any, words: list[str], tmp_path: Path, metrics_of: Any) -> None:
    """Mixed as the shares say: each part has its share of the tokens, at the bytes of those that were scored."""
    kept = [setting for setting in words if not setting.startswith("data")]
    mixture = ["data=mixture", *(f"+data@data.parts.{name}=text" for name in "ab"), "+data.parts.b.weight=3"]
    for name, text in (("a", BEGINS_LONG), ("b", BEGINS_SHORT)):
        mixture += [f"data.parts.{name}.path={file_of(tmp_path, text)}", f"data.parts.{name}.val_fraction=0.5"]
    outcome = invoke(tmp_path, "train", *kept, *mixture, "trainer.limit_val_batches=2", "run_dir=run")
    assert outcome.status == 0, outcome.err
    found = last_row(metrics_of, tmp_path / "run")
    of_parts = {name: (share, text) for name, share, text in (("a", 0.25, BEGINS_LONG), ("b", 0.75, BEGINS_SHORT))}
    size = sum(share / bits(text, math.log(2), 2 * BATCH) for share, text in of_parts.values())  # bytes a token
    nats = sum(share * found[f"val/loss/{name}"] for name, (share, _) in of_parts.items())
    assert found["val/loss"] == pytest.approx(nats, rel=1e-5)
    assert found["val/bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)


@pytest.mark.nightly
def test_two_ranks_score_what_one_does(
    invoke: Any, words: list[str], tmp_path: Path, metrics_of: Any, cache_dir: Path
) -> None:
    """One batch on each of two is two on one; a rank has its own windows' bytes."""
    split = ("trainer.limit_val_batches=1", "trainer.devices=2", "trainer.global_batch_size=8", "run_dir=two")
    done = subprocess.run(
        [Path(sys.executable).with_name("slm-train"), *words, *split],
        cwd=tmp_path, env={**os.environ, "SLM_CACHE_DIR": str(cache_dir)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = last_row(metrics_of, tmp_path / "two")
    assert found["val/bits_per_byte"] == pytest.approx(bits(BEGINS_LONG, found["val/loss"], 2 * BATCH), rel=1e-5)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("loss_on", ["all", "responses"])
def test_of_conversations(
    invoke: Any, tiny: tuple[str, ...], tmp_path: Path, metrics_of: Any, loss_on: str, packing: bool
) -> None:
    """A conversation's first token is no label: with ``loss_on=all`` it was counted as one, and its byte too."""
    (tmp_path / "chat.jinja").write_text("{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }};{% endfor %}")
    talks = [(f"the {i}", "the naïve cat" + "s" * (i % 4)) for i in range(20)]
    lines = [json.dumps({"prompt": asked, "response": answer}) for asked, answer in talks]
    (tmp_path / "talks.jsonl").write_text("\n".join(lines))
    kept = [setting for setting in tiny if not setting.startswith(("data", "model.params"))]
    outcome = invoke(
        tmp_path, "train", *kept, "model.params.max_seq_len=64", "data=instructions", "data.path=talks.jsonl",
        "task=sft", "task.template=hf", "task.template_file=chat.jinja", f"task.loss_on={loss_on}",
        f"task.packing={packing}", "task.answers=0", "trainer.max_steps=1", "run_dir=run",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    outcome = invoke(tmp_path, "evaluate", "run=run", "split=all")
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out)
    written = [f"u:{a};a:{b};" if loss_on == "all" else f"a:{b};" for a, b in talks]
    n_bytes = sum(len(text.encode()) - (loss_on == "all") for text in written)  # a byte a token
    n_labels = n_bytes + len(talks)  # with the end of each text
    assert (found["learnt_tokens"], found["scored_tokens"], found["scored_bytes"]) == (n_labels, n_labels, n_bytes)
    assert found["bits_per_byte"] == pytest.approx(found["loss"] / math.log(2) * n_labels / n_bytes, rel=1e-6)
