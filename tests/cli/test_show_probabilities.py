"""``slm-generate show=probabilities``: each token in its colour, at a terminal that has colours; as numbers in JSON."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

import slm
from slm.generation.completion import Piece
from slm.generation.probability_colours import ProbabilityColours
from slm.generation.request import Token

WRITTEN = ("prompt=the", "generation.max_new_tokens=12", "generation.seed=1")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> ProbabilityColours:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return ProbabilityColours(Terminal())


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def piece(text: str, probability: float) -> Piece:
    return Piece(text, Token(0, 5, math.log(probability)))


def test_each_level_has_its_colour(colours: ProbabilityColours) -> None:
    painted = [colours.of(piece("word", p), "word") for p in (0.005, 0.05, 0.3, 0.7, 0.95, 1.0)]
    assert {plain(text) for text in painted} == {"word"}
    assert len(set(painted)) == 5
    assert painted[-1] == painted[-2]
    assert plain(colours.legend) == "probability below 0.01 from 0.01 from 0.1 from 0.5 from 0.9"


def test_what_is_shown_is_the_text(colours: ProbabilityColours) -> None:
    """White space is never painted: a line's end inside a colour paints lines. A character of several tokens has the
    least likely's colour; what no token came with stays plain."""
    assert colours.of(piece(" a\n", 0.3), " a\n") == f" {colours.painted('a', 0.3)}\n"
    assert colours.of(piece("\n\t", 0.3), "\n\t") == "\n\t"
    assert colours.of(piece("", 0.05), "") == ""
    assert colours.of(piece("ü", 0.95), "ü") == colours.painted("ü", 0.05)
    assert colours.of(Piece("rest", None), "rest") == "rest"


@pytest.mark.parametrize("why", ["NO_COLOR", "a file", "TERM"])
def test_where_there_are_none(why: str, colours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if why != "a file":
        monkeypatch.setenv(why, "dumb" if why == "TERM" else "1")
    plainly = ProbabilityColours(io.StringIO() if why == "a file" else Terminal())
    assert not plainly.has_any
    assert plainly.of(piece("word", 0.3), "word") == "word"


def test_in_a_pipe_it_is_the_text_alone(run_cli: Any, tiny_run: Path) -> None:
    shown, without = (run_cli("generate", f"run={tiny_run}", *WRITTEN, *show) for show in (["show=probabilities"], []))
    assert shown.status == 0, shown.err
    assert shown.out == without.out
    assert "no colours here" in shown.err


def test_the_numbers_are_the_models(run_cli: Any, tiny_run: Path) -> None:
    """Before any setting of the sampling: what the model itself gives to each token, and what it finds likeliest."""
    outcome = run_cli("generate", f"run={tiny_run}", *WRITTEN, "show=probabilities", "json=true")
    assert outcome.status == 0, outcome.err
    (completion,) = json.loads(outcome.out)["completions"]
    tokens = completion["tokens"]
    lm = slm.load(tiny_run)
    ids = [token["id"] for token in tokens]
    prompt = lm.tokenizer.encode("the")
    probabilities = lm.trace([*prompt, *ids][:16], attention=False).logits[0].softmax(-1)
    for place, token in enumerate(tokens, len(prompt) - 1):
        assert math.isclose(token["probability"], float(probabilities[place, token["id"]]), rel_tol=1e-4)
        assert [one["id"] for one in token["alternatives"]] == probabilities[place].topk(5).indices.tolist()
    assert lm.tokenizer.decode(ids) == completion["completion"]


def test_what_it_can_be(run_cli: Any, tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a\n")
    for more, said in ((["prompt=a", "show=colours"], "show should be"), (["prompts=prompts.txt"], "prompts=FILE")):
        refused = run_cli("generate", f"run={tiny_run}", "show=probabilities", *more)
        assert (refused.status, refused.out) == (2, "")
        assert said in refused.err
