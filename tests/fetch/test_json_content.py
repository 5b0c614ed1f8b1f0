"""JSON told from what is not, as Python's own parser tells it, in whatever pieces it comes and in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable
from itertools import chain, repeat
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import slm.fetch.content
from slm.fetch.content import check_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
EDITS = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 1), st.sampled_from('[]{}:,"\\ \n0123456789-+.eEtrufalsn/\x01N')),
    max_size=3,
)


def said(pieces: Iterable[bytes]) -> str:
    """ "JSON", or what is wrong."""
    try:
        check_json(pieces)
    except ValueError as error:
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


def has_halves(text: str) -> bool:
    """Half a pair of surrogates, which is no character: RFC 8259 leaves it open, and so does ijson."""
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except ValueError:
        pass
    return False


@given(VALUES, EDITS, st.sampled_from([None, 1]), st.booleans(), st.integers(1, 12))
@example([0], [(2, 0, ",")], None, True, 1)
@example(["a"], [(1, 0, "\\")], None, True, 2)
@example([], [(2, 0, '"')], None, True, 1)
@example([1], [(2, 0, "E99999999999999999999")], None, True, 30)
@settings(max_examples=400, deadline=None)
def test_as_the_parser_says_in_any_pieces(
    value: Any, edits: list[tuple[int, int, str]], indent: int | None, ascii_only: bool, size: int
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    for place, removed, added in edits:
        at = place % (len(text) + 1)
        text = text[:at] + added + text[at + removed :]
    assume(not has_halves(text))
    data = text.encode()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert (said(pieces) == "JSON") == (said([data]) == "JSON") == is_json(text), text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no value"),
        ('{"a": 1', "parse error: premature EOF"),
        ('"abc', "it ends within a string, number or word"),
        ('[] "abc', "it ends within a string, number or word"),
        ("[tru", "it ends within a string, number or word"),
        ("[1, 2,]", "parse error: unallowed token at this point in JSON text near '[1, 2,]'"),
        ("[1, 2] []", "parse error: trailing garbage near '[1, 2] []'"),
        ("{'a': 1}", "lexical error: invalid char in json text near \"{'a': 1}\""),
        ("[NaN]", "lexical error: invalid char in json text near '[NaN]'"),
        ('["a\nb"]', "lexical error: invalid character inside string near '[\"a b\"]'"),
        ("[" * 501, "more than 500 brackets are open"),
        ("[[" + "1" * 4301 + "]]", "a number is longer than 4300 digits"),
        ("[-" + "1" * 10**4 + "]", "a number is longer than 4300 digits"),
    ],
)
@pytest.mark.parametrize("size", [7, 1 << 16])
def test_what_is_wrong_is_named(text: str, message: str, size: int) -> None:
    found = said(text[at : at + size].encode() for at in range(0, len(text), size))
    assert found == message if size > 7 else found.partition(" near ")[0] == message.partition(" near ")[0]


@pytest.mark.parametrize("text", [b'["\xff"]', b'["\xc3"]', b'["\xc3', b'"\xed\xa0\x80"', b'"\xc0\x80"', b"\xff"])
def test_what_is_not_utf_8_is_not_json(text: bytes) -> None:
    assert said([text]) != "JSON"


@pytest.mark.parametrize("text", ["[1]\x0b", "\x0c[1]"])
def test_what_ijson_takes_besides(text: str) -> None:
    """Not white space by RFC 8259. The reader of the file says so, if it minds; here the difference is pinned."""
    assert said([text.encode()]) == "JSON"
    assert not is_json(text)


@pytest.mark.parametrize("text", ["9" * 4300, "1e400", "0." + "1" * 10**5, '{"a": 1, "a": 2}'])
def test_what_is_json_and_unusual(text: str) -> None:
    assert is_json(text)
    assert said([text.encode()]) == "JSON"


@pytest.mark.parametrize(
    ("begin", "middle", "end", "most"),
    [
        ('{"a": "', "b\\n\\u00e9" * 4096, '"}', 2 << 20),
        ("[0", ",0" * 16384, "]", 2 << 20),
        (" ", " " * 32768, "1", 1 << 20),
    ],
    ids=["a string", "numbers", "space"],
)
def test_memory_is_bounded(begin: str, middle: str, end: str, most: int) -> None:
    """2 MB of one value, of which a parser would hold all; only a string is ever held."""
    count = (2 << 20) // len(middle)
    pieces = chain([begin.encode()], repeat(middle.encode(), count), [end.encode()])
    tracemalloc.start()
    try:
        assert said(pieces) == "JSON"
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def test_a_string_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slm.fetch.content, "_LONGEST", 2 << 20)
    assert said(chain([b'"'], repeat(b"x" * 65536))) == "a string is longer than 2 MiB"
