"""Conditions as one types them."""

from __future__ import annotations

from typing import Any

import pytest

from slm.errors import UserError
from slm.study.where import parse_condition

RUN: dict[str, Any] = {
    "optimizer.lr": 0.003,
    "dim": 64,
    "tied": True,
    "precision": "32-true",
    "started": "2026-01-31T12:00:00+00:00",
    "note": "two words (a)",
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("optimizer.lr>1e-3", True),
        ("optimizer.lr >= 3e-3 and dim<=64", True),
        ("dim=64.0", True),
        ("dim==65 or dim!=64", False),
        ("tied=true and not tied=false", True),
        ("tied=1", False),
        ("precision=32-true", True),
        ("started>2026-01-30 and started<2026-02", True),
        ("note='two words (a)'", True),
        ('note="two"', False),
        ("dim=1 and dim=2 or dim=64", True),  # and binds first
        ("dim=64 or dim=1 and dim=2", True),
        ("(dim=64 or dim=1) and dim=2", False),
        ("not (dim=1 or dim=2) AND tied=TRUE", True),
        ("gone=1", False),
        ("gone<1", False),
        ("gone!=1", True),
        ("gone=null", True),
        ("dim!=none", True),
        ("dim<null", False),
    ],
)
def test_what_holds(text: str, holds: bool) -> None:
    assert parse_condition(text).holds(RUN.get) is holds


def test_its_names_are_known_ahead() -> None:
    assert parse_condition("a=1 and (b>2 or not c<3) or a=2").names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "its end"),
        ("dim", "its end"),
        ("dim>", "its end"),
        ("dim>>3", "'>3'"),
        ("dim=1 dim=2", "'dim=2'"),
        ("(dim=1", "its end"),
        ("dim=1)", "')'"),
        ("=3", "'=3'"),
        ("dim=1 and", "its end"),
        ("dim 'x' 3", "''x' 3'"),
        ("__import__('os').system('x')", "'('os').system('x')'"),
        ("dim=!3", "'!3'"),
        ("a='b", "''b'"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, place: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_condition(text)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"where: cannot read '{text}' at {place}; a condition is NAME ")


def test_brackets_without_end() -> None:
    with pytest.raises(UserError, match="nested too deep"):
        parse_condition("(" * 5000 + "a=1" + ")" * 5000)
