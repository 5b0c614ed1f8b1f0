"""Text on the command line means itself, whatever Hydra's grammar makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from slm.cli.command import CommandLine, as_typed, quoted, read, with_escapes
from slm.errors import UserError

PARSER = OverridesParser.create()
# no NUL: an argument of a process cannot hold one
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.text(
    alphabet="a\\'\"${}[](),=:#~ \n\t"
)


@settings(max_examples=400, deadline=None)
@given(TEXT)
@example("def main(")
@example('it\'s "quoted"')
@example("C:\\dir\\")
@example("\\'")
@example("${x}")
@example("\\${x}")
@example("\\\\${oc.env:HOME}\\")
@example("$${a}${")
@example("a, b: [1, {2}] = (c) # d ~e\n")
@example("")
@example(" null ")
@example("true")
def test_any_text_comes_through(text: str) -> None:
    """Through Hydra's parser, and through OmegaConf, which would replace a ``${x}``."""
    value = PARSER.parse_override(f"prompt={quoted(text)}").value()
    config = OmegaConf.create({"prompt": value, "x": "replaced"})
    assert OmegaConf.to_container(config, resolve=True)["prompt"] == text  # type: ignore[index, call-overload]


@settings(deadline=None)
@given(TEXT)
@example("\\${x}")
@example("a'b")
def test_as_typed_is_the_inverse(text: str) -> None:
    """What a run records is what was typed, so that resuming it can type it again."""
    assert as_typed([f"data.path={quoted(text)}", "seed=1"], ["data.path"]) == [f"data.path={text}", "seed=1"]


def test_a_list_stays_a_list() -> None:
    assert as_typed(["data.path=[a,b]", "x='y'"], ["data.path"]) == ["data.path=[a,b]", "x='y'"]


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab\\'\"$[](),=: \n\t\rü", max_size=6), max_size=3))
@example(["\n"])
@example(["\\n", 'it\'s\t"so"\\'])
def test_double_quotes_mean_what_they_mean_in_yaml(texts: list[str]) -> None:
    """Hydra takes "\\n" for a backslash and an n, so no text ever ended at it."""
    typed = f"generation.stop={json.dumps(texts, ensure_ascii=False)}"
    assert yaml.safe_load(typed.partition("=")[2]) == texts
    once = with_escapes(typed, ())
    assert PARSER.parse_override(once).value() == texts
    assert with_escapes(once, ()) == once, "a resumed run repeats what Hydra was given"


def test_what_is_no_escape_stays() -> None:
    """A regular expression, single quotes, no quotes, a path, an interpolation."""
    for typed in (r"x='\n'", r"x=\n", r'x="\w+"', r'x="${a}\n"', r'x=${f:"a"}'):
        assert PARSER.parse_override(with_escapes(typed, ())).value() == PARSER.parse_override(typed).value()
    assert with_escapes(r'+data.path=["C:\new"]', ["data.path"]) == r'+data.path=["C:\new"]'


def test_flags_and_settings_are_told_apart() -> None:
    """In any order, with a value beside or behind it, shortened as argparse lets one; the rest looks like a setting."""
    line = read(["a=1", "--cfg", "job", "--multi", "-cd=own", "b=2", "--info", "c=3", "--lr", "3", "--foo", "--x=y"])
    flags = ["--cfg=job", "--multirun", "-cd=own", "--info=all"]
    unknown = [("--lr 3", "lr=3"), ("--foo", "foo=true"), ("--x=y", "x=y")]
    assert line == CommandLine(flags, ["a=1", "b=2", "c=3"], unknown)
    assert (line.config_dir, line.is_multirun) == (Path("own"), True)
    assert read(line.known) == CommandLine(flags, ["a=1", "b=2", "c=3"])


@pytest.mark.parametrize("typed", [["--cfg"], ["--cfg", "jobs"], ["--info=x"], ["-cd"], ["--resolve"]])
def test_a_flag_with_a_wrong_value_is_a_mistake(typed: list[str]) -> None:
    with pytest.raises(UserError, match=f"{typed[0].partition('=')[0]} (takes|is read only with)"):
        read(typed)
