"""JSON told from what is not, as Python's own parser tells it, in whatever pieces it comes and in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable
from itertools import chain, repeat
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slm.fetch.crawler.json_syntax import JsonSyntax, JsonSyntaxError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
EDITS = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 1), st.sampled_from('[]{}:,"\\ \n0123456789-+.eEtrufalsn/\x01N')),
    max_size=3,
)


def said(pieces: Iterable[str]) -> str:
    """ "JSON", or what is wrong."""
    syntax = JsonSyntax()
    try:
        for piece in pieces:
            syntax.feed(piece)
        syntax.close()
    except JsonSyntaxError as error:
        return str(error)
    return "JSON"


def refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is Python's, not JSON's")


def is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


@given(VALUES, EDITS, st.sampled_from([None, 1]), st.booleans(), st.integers(1, 12))
@example([0], [(2, 0, ",")], None, True, 1)
@example(["a"], [(1, 0, "\\")], None, True, 2)
@settings(max_examples=400, deadline=None)
def test_as_the_parser_says_in_any_pieces(
    value: Any, edits: list[tuple[int, int, str]], indent: int | None, ascii_only: bool, size: int
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    for place, removed, added in edits:
        at = place % (len(text) + 1)
        text = text[:at] + added + text[at + removed :]
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert (said(pieces) == "JSON") == (said([text]) == "JSON") == is_json(text), text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a value at character 1, found the end"),
        ('{"a": 1', "expected ',' or a closing bracket at character 8, found the end"),
        ('"abc', 'expected " at character 5, found the end'),
        ("[1, 2,]", "expected a value at character 7, found ']'"),
        ("[1, 2] []", "expected the end at character 8, found '['"),
        ("{'a': 1}", "expected a name in quotes or '}' at character 2, found \"'\""),
        ("[NaN]", "expected a value or ']' at character 2, found 'NaN'"),
        ('["a\nb"]', "expected a character or an escape at character 4, found '\\nb' in a string"),
        ("[" * 501, "more than 500 brackets are open at character 501"),
        ("1" * 4301, "a number or word is longer than 4300 at character 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, message: str) -> None:
    assert said([text]) == message


@pytest.mark.parametrize(
    ("begin", "middle", "end"),
    [
        ('{"a": "', "b\\n\\u00e9" * 4096, '"}'),
        ("[0", ",0" * 16384, "]"),
        (" ", " " * 32768, "1"),
    ],
    ids=["a string", "numbers", "space"],
)
def test_memory_is_bounded(begin: str, middle: str, end: str) -> None:
    """2 MB of one value, of which a parser would hold all; here less than 1 MB is ever held."""
    count = (2 << 20) // len(middle)
    tracemalloc.start()
    try:
        assert said(chain([begin], repeat(middle, count), [end])) == "JSON"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
