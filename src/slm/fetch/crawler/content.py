"""Whether what came is what was meant: JSON where JSON is expected, and nothing compressed behind our back."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from slm.errors import UserError
from slm.fetch.crawler.json_syntax import JsonSyntax, JsonSyntaxError
from slm.fetch.download import Report
from slm.fetch.http_get import shown
from slm.fetch.partial_file import Remote

Kind = Literal["JSON", "JSONL"]
_KIND_OF_ENDING: dict[str, Kind] = {".json": "JSON", ".jsonl": "JSONL", ".ndjson": "JSONL"}
_JSONL_TYPES = ("jsonl", "x-jsonl", "jsonlines", "x-jsonlines", "json-lines", "ndjson", "x-ndjson")
_ENDINGS_OF_ENCODING = {"gzip": (".gz", ".tgz"), "x-gzip": (".gz", ".tgz"), "zstd": (".zst",), "br": (".br",)}
_BLOCK = 1 << 18


def check_content(file: Path, name: str, remote: Remote, report: Report) -> None:
    """Check a file before it gets its name; memory is bounded whatever it holds.

    Args:
        file: what came.
        name: what it will be called; its ending says what it must be.
        remote: what the server says of it; its content type decides where the ending says nothing.
        report: is told (bytes checked, bytes in all).

    Raises:
        UserError: it is not JSON (or JSONL: a JSON value a line), or the server compressed it unasked.
    """
    if remote.content_encoding not in ("", "identity"):
        _check_encoding(name, remote)
        return
    by_name = _KIND_OF_ENDING.get(Path(name).suffix.lower())
    kind = by_name or _kind_of_type(remote.content_type)
    if kind is None:
        return
    try:
        (_check_lines if kind == "JSONL" else _check_value)(_pieces(file, report))
    except JsonSyntaxError as error:
        meant = f"a filename that does not end in {Path(name).suffix}" if by_name else "another address"
        because = "" if by_name else f", though the server says {shown(remote.content_type)}"
        raise UserError(
            f"{remote.url} is not {kind}{because} ({_looks_like(file) or error}); give the address of the raw file, "
            f"or {meant}"
        ) from None


def _check_encoding(name: str, remote: Remote) -> None:
    """Files come as they lie on the server, since that is what we ask for; one that is compressed is named so."""
    endings = _ENDINGS_OF_ENCODING.get(remote.content_encoding, ())
    if not name.lower().endswith(endings):
        mend = f"name it {name}{endings[0]}" if endings else "give another address"
        raise UserError(
            f"{remote.url} came compressed (Content-Encoding: {shown(remote.content_encoding)}), which was not asked "
            f"for; {mend}"
        )


def _kind_of_type(content_type: str) -> Kind | None:
    subtype = content_type.rpartition("/")[2]
    if subtype in _JSONL_TYPES:
        return "JSONL"
    return "JSON" if subtype == "json" or subtype.endswith("+json") else None


def _pieces(file: Path, report: Report) -> Iterator[str]:
    """Its text, without a byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    whole, done = file.stat().st_size, 0
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            try:
                yield decoder.decode(block)
            except UnicodeDecodeError as error:
                raise JsonSyntaxError(f"it is not UTF-8 near byte {done + error.start}") from None
            done += len(block)
            report(done, whole)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise JsonSyntaxError("it ends within a character") from None


def _check_value(pieces: Iterator[str]) -> None:
    syntax = JsonSyntax()
    for piece in pieces:
        syntax.feed(piece)
    syntax.close()


def _check_lines(pieces: Iterator[str]) -> None:
    """Blank lines are passed over, as the readers do."""
    number, found = 1, False
    syntax = JsonSyntax()
    try:
        for piece in pieces:
            *ends, begin = piece.split("\n")
            for end in ends:
                syntax.feed(end)
                found |= _ended(syntax)
                number, syntax = number + 1, JsonSyntax()
            syntax.feed(begin)
        found |= _ended(syntax)
    except JsonSyntaxError as error:
        raise JsonSyntaxError(f"line {number}: {error}") from None
    if not found:
        raise JsonSyntaxError("there is no line with a value")


def _ended(line: JsonSyntax) -> bool:
    """Whether the line, which is over, holds a value."""
    if not line.blank:
        line.close()
    return not line.blank


def _looks_like(file: Path) -> str | None:
    """What people often get instead, if that is what this is."""
    with file.open("rb") as content:
        head = content.read(1024)
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if not head:
        return "it is empty"
    if start == b"<":
        return "it is a web page, or other HTML or XML"
    return "it is compressed with gzip" if head.startswith(b"\x1f\x8b") else None
