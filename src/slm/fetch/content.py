"""Whether what came is what was meant: JSON where JSON is expected, and nothing compressed behind our back."""

import codecs
import decimal
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import ijson

from slm.errors import UserError
from slm.fetch.download import Report
from slm.fetch.http import Answer, shown

_KIND_OF_ENDING = {".json": "JSON", ".jsonl": "JSONL", ".ndjson": "JSONL"}
_KIND_OF_TYPE = {"JSON": r"(.*[/+])?json", "JSONL": r"(.*/)?(x-)?(jsonl|json-?lines|ndjson)"}
_ENDINGS_OF_ENCODING = {"gzip": (".gz", ".tgz"), "x-gzip": (".gz", ".tgz"), "zstd": (".zst",), "br": (".br",)}
_BLOCK = 1 << 18
_LONGEST = 16 << 20  # bytes of a string: ijson holds it, and reads it again with each block that does not end it
_MAX_DEPTH = 500  # readers that recurse, Python's among them, give up at about twice as much
_STEPS = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}


def check_content(file: Path, name: str, remote: Answer, report: Report) -> None:
    """Raise `UserError` if what came as `file` is not the JSON (or JSONL: a JSON value a line) that the ending of
    `name`, or else the server's content type, says; or if the server compressed it unasked. Memory is bounded."""
    encoding = remote.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):  # files come as they lie there: one that is compressed is named so
        endings = _ENDINGS_OF_ENCODING.get(encoding, ())
        if not name.lower().endswith(endings):
            mend = f"name it {name}{endings[0]}" if endings else "give another address"
            said = f"came compressed (Content-Encoding: {shown(encoding)}), which was not asked for"
            raise UserError(f"{remote.url} {said}; {mend}")
        return
    content_type = remote.headers.get("content-type", "").partition(";")[0].strip().lower()
    by_name = _KIND_OF_ENDING.get(Path(name).suffix.lower())
    by_type = next((kind for kind, names in _KIND_OF_TYPE.items() if re.fullmatch(names, content_type)), None)
    if (kind := by_name or by_type) is None:
        return
    try:
        check_json(_blocks(file, report), kind == "JSONL")
    except ValueError as error:
        meant = f"a filename that does not end in {Path(name).suffix}" if by_name else "another address"
        because = "" if by_name else f", though the server says {shown(content_type)}"
        why = _looks_like(file) or shown(str(error))
        said = f"{remote.url} is not {kind}{because} ({why})"
        raise UserError(f"{said}; give the address of the raw file, or {meant}") from None


def _blocks(file: Path, report: Report) -> Iterator[bytes]:
    whole = file.stat().st_size
    with file.open("rb") as content:
        if content.read(3) != codecs.BOM_UTF8:
            content.seek(0)
        while block := content.read(_BLOCK):
            yield block
            report(completed=content.tell(), total=whole)


def _looks_like(file: Path) -> str | None:
    """What people often get instead, if that is what this is."""
    with file.open("rb") as content:
        head = content.read(1024)
    if not head:
        return "it is empty"
    if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<"):
        return "it is a web page, or other HTML or XML"
    return "it is compressed with gzip" if head.startswith(b"\x1f\x8b") else None


def check_json(blocks: Iterable[bytes], lines: bool = False) -> None:
    """Raise `ValueError` unless the text is one JSON value or, with `lines`, has one on each line that is not blank."""
    number, value, found = 1, _Value(), False
    try:
        for block in blocks:
            *ends, begin = block.split(b"\n") if lines else [block]
            for end in ends:
                value.feed(end)
                found |= value.end()
                number, value = number + 1, _Value()
            value.feed(begin)
        found |= value.end()
    except ValueError as error:
        raise ValueError(f"line {number}: {error}" if lines else str(error)) from None
    if not found:
        raise ValueError("there is no line with a value" if lines else "there is no value")


class _Value:
    """A JSON value that comes in pieces, or nothing but space."""

    def __init__(self) -> None:
        self._begun = False
        self._events = ijson.sendable_list()
        self._parser = ijson.basic_parse_coro(self._events)
        self._depth = self._silent = 0

    def feed(self, piece: bytes) -> None:
        self._begun |= bool(piece.strip())
        if not self._begun or not piece:
            return
        self._send(piece)
        self._silent = 0 if self._events else self._silent + len(piece)
        if self._silent > _LONGEST:
            raise ValueError(f"a string is longer than {_LONGEST >> 20} MiB")
        for event, _ in self._events:
            self._depth += _STEPS.get(event, 0)
            if self._depth > _MAX_DEPTH:
                raise ValueError(f"more than {_MAX_DEPTH} brackets are open")
        self._events.clear()

    def end(self) -> bool:
        """Whether there was a value, which is whole."""
        if self._begun:
            try:
                self._send(b"\n")  # no string goes on over it: ijson overlooks an open one that follows the value
            except ValueError:
                raise ValueError("it ends within a string, number or word") from None
            self._send(b"")
        return self._begun

    def _send(self, piece: bytes) -> None:
        try:
            with decimal.localcontext(decimal.ExtendedContext):  # which takes any exponent, as JSON does
                self._parser.send(piece)
        except StopIteration:  # the end was told, and is one
            pass
        except SystemError:  # ijson 3.6 goes on with a null pointer: the events of this piece must not be looked at
            raise ValueError(f"a number is longer than {sys.get_int_max_str_digits()} digits") from None
        except ijson.JSONError as error:
            said = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
            what, near = (line.strip(" .") for line in (*said.split("\n"), "")[:2])  # the second line shows the place
            raise ValueError(f"{what} near {near!r}" if near else what) from None
