"""`slm-crawl` against servers of our own: what it saves, and what it refuses without leaving a trace."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import runpy
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from local_site import CUT, JSON, Resumable, Route, Site, left, page, raw, to

import slm.fetch.crawl
import slm.fetch.download
from slm.errors import UserError
from slm.fetch.crawl import place_of
from slm.fetch.download import claimed

ROOT = Path(__file__).parents[2]
JSONL = b"".join(b'{"n": %d}\n' % n for n in range(500))
HTML = b"<!DOCTYPE html>\n<html><body>Sign in</body></html>"


def manifest(tmp_path: Path) -> list[dict[str, Any]]:
    return json.loads((tmp_path / "data/sft/manifest.json").read_text(encoding="utf-8"))


def test_a_file_arrives_with_a_line_in_the_manifest(site: Site, run_cli: Any, tmp_path: Path) -> None:
    site["/a.json"] = page()
    outcome = run_cli("crawl", f"url={site.url}/a.json?v=1,2", "category=sft", "filename=a.json", "allow_private=true")
    digest = hashlib.sha256(JSON).hexdigest()
    assert (outcome.status, outcome.err) == (0, "")
    assert json.loads(outcome.out) == {"file": "data/sft/a.json", "bytes": len(JSON), "sha256": digest}
    assert (tmp_path / "data/sft/a.json").read_bytes() == JSON
    assert left(tmp_path) == ["data", "data/sft", "data/sft/a.json", "data/sft/manifest.json"]
    (line,) = manifest(tmp_path)
    came = datetime.fromisoformat(line.pop("time"))
    assert came.utcoffset() == timedelta(0)
    assert abs(datetime.now(timezone.utc) - came) < timedelta(minutes=1)
    assert line == {"file": "a.json", "url": f"{site.url}/a.json?v=1,2", "size": len(JSON), "sha256": digest}


REFUSED = {
    "truncated": (page(send=500), {}, r"broke off at 500 of \d+ bytes\); with no network"),
    "truncated, with a version": (page(send=500, etag='"one"'), {}, r"broke off at 500 of \d+ bytes\); with no"),
    "truncated chunk": (
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n[1"), {}, r"\(it broke off before its end\)"
    ),
    "5 GB declared": (
        page(send=10, content_length="5000000000"), {}, "has 5000000000 bytes, allowed are 2000000000; raise max_size"
    ),
    "more than declared anywhere": (
        raw(b"HTTP/1.1 200 OK\r\n\r\n", again=b"1234567 " * 4096), {"max_size": "1MB"},
        r"has 1\d{6} bytes or more, allowed are 1000000; raise max_size",
    ),
    "chunks without end": (
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", again=b"2000\r\n%8192d\r\n" % 1),
        {"max_size": "1MB"}, r"has 1\d{6} bytes or more, allowed are 1000000; raise max_size",
    ),
    "redirect loop": (to("/x"), {}, "redirected more than 5 times; check url"),
    "redirect to a file": (to("file:///etc/passwd"), {}, "redirected to file:///etc/passwd, which is not http"),
    "redirect with a password": (
        to("http://me:secret@localhost/"), {}, "redirected to http://…@localhost/, which must not hold a user's name"
    ),
    "redirect to nobody": (to("http://:80/x"), {}, "redirected to http://:80/x, which must name a server"),
    "404": (page(b"no", 404), {}, "the server answers 404 Not Found"),
    "503": (page(b"no", 503), {}, "the server answers 503 Service Unavailable"),
    "too many": (page(b"no", 429, retry_after="900"), {}, "429 Too Many Requests, and asks to wait 900 s"),
    "no content": (page(b"", 204), {}, "the answer 204 is not what was asked for"),
    "its own words": (raw(b"HTTP/1.1 404 \x1b[2Jgotcha\r\n\r\n"), {}, r"answers 404 Not Found\)"),
    "not http": (raw(b"SSH-2.0-\x1b[31mOpenSSH\r\n" * 100), {}, "Server disconnected without sending a response"),
    "a status line that is none": (
        raw(b"SSH-2.0-\x1b[31mOpenSSH\r\n\r\n"), {}, r"illegal status line: .*SSH-2\.0-\\x1b\[31mOpenSSH"
    ),
    "HTML for JSON": (page(HTML), {}, "is not JSON .it is a web page, .*; give the address of the raw file"),
    "HTML for JSONL": (page(HTML), {"filename": "a.jsonl"}, "is not JSONL .it is a web page, .*does not end in .jsonl"),
    "broken JSON": (page(JSON[:-9]), {}, r"is not JSON \(it ends within a string, number or word\)"),
    "JSON that lacks a bracket": (page(JSON[:-1]), {}, r"is not JSON \(parse error: premature EOF\)"),
    "no JSON by its type": (
        page(HTML, content_type="application/json; charset=utf-8"), {"filename": "a.txt"},
        "is not JSON, though the server says application/json .it is a web page",
    ),
    "no JSONL by its type": (
        page(b"{}\n{", content_type="application/x-ndjson"), {"filename": "a"}, "not JSONL, though .* .line 2: ",
    ),
    "a bad line": (
        page(JSONL + b"{'n': 1}\n" + JSONL), {"filename": "a.jsonl"},
        r"\(line 501: lexical error: invalid char in json text near \"{'n': 1}\"\)",
    ),
    "a value over two lines": (page(b'[1,\n2]\n'), {"filename": "a.jsonl"}, r"\(line 1: parse error: premature EOF\)"),
    "nothing": (page(b""), {}, "is not JSON .it is empty."),
    "blank lines": (page(b"\n \n"), {"filename": "a.jsonl"}, "there is no line with a value"),
    "not UTF-8": (page(b'["\xff"]'), {}, "invalid bytes in UTF8 string near"),
    "half a character": (page('["ä'.encode()[:-1]), {}, "it ends within a string"),
    "brackets": (page(b"[" * 10**6), {}, "more than 500 brackets are open"),
    "gzip": (page(b"\x1f\x8b\x08\x00"), {}, "is not JSON .it is compressed with gzip."),
    "gzip on its way": (
        page(b"\x1f\x8b", content_encoding="gzip"), {}, "came compressed .*: gzip., .*; name it a.json.gz"
    ),
    "another category": (page(), {"category": "sfx"}, "category should be 'sft', 'rl' or 'rag'; got 'sfx'"),
    "up and out": (page(), {"filename": "../../x"}, "filename must not lead to another folder .*; got '../../x'"),
    "no number": (page(), {"max_size": "huge"}, "max_size could not parse"),
    "an unknown key": (page(), {"overwite": "true"}, "unknown key 'overwite'; did you mean 'overwrite'?"),
    "file://": (page(), {"url": "file:///etc/passwd"}, "url must begin with https:// or http://; got 'file:///etc/passwd'"),
    "ftp://": (page(), {"url": "ftp://localhost/x"}, "url must begin with https:// or http://"),
    "a name in no letters": (to("http://\xff\xfe/"), {}, "redirected to http://%FF%FE/, which must name a server"),
    "a number without end": (page(content_length="9" * 4290), {}, "bad Content-Length"),
    "a line more": (page(), {"url": "http://localhost/x\ny"}, "url must be made of printable characters; got 'http"),
    "no port": (page(), {"url": "http://localhost:x/"}, "url must name a server, and a port from 1 to 65535 if any"),
    "no server": (page(), {"url": "http://"}, "url must name a server"),
    "no name": (page(), {"url": "http://a..b/x"}, r"cannot download http://a\.\.b/x \("),
    "this machine": (page(), {"allow_private": "false"}, r"localhost is (127|::1).*, a loopback address\); set"),
}  # fmt: skip


@pytest.mark.parametrize(("route", "settings", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_in_a_line_with_nothing_left_behind(
    site: Site, run_cli: Any, tmp_path: Path, route: Route, settings: dict[str, str], message: str
) -> None:
    site["/x"] = route
    defaults = {
        "url": f"{site.url}/x",
        "category": "sft",
        "filename": "a.json",
        "allow_private": "true",
        "timeout": "5",
    }
    typed = [f"{name}={value}" for name, value in {**defaults, **settings}.items()]
    outcome = run_cli("crawl", *typed)
    assert (outcome.status, outcome.out) == (2, "")
    assert re.fullmatch(r"slm-crawl: .*\n", outcome.err), outcome.err
    assert outcome.err[:-1].isprintable()
    assert len(outcome.err) < 600
    assert re.search(message, outcome.err)
    assert left(tmp_path) == []


@pytest.mark.parametrize("given", [[], ["url=https://example.org/a.json"], ["filename=a.json", "category=sft"]])
def test_what_is_missing_is_named_together(run_cli: Any, tmp_path: Path, given: list[str]) -> None:
    outcome = run_cli("crawl", *given)
    missing = [key for key in ("url", "category", "filename") if not any(word.startswith(key) for word in given)]
    assert outcome.status == 2
    assert outcome.err.splitlines() == [f"slm-crawl: {key} is missing; set it: {key}=…" for key in sorted(missing)]
    assert left(tmp_path) == []


def test_a_refusal_leaves_what_was_there(site: Site, save: Callable[..., Any], tmp_path: Path) -> None:
    """Also with overwrite=true: the old file goes when the new one is known to be good."""
    site["/a.json"], site["/b.json"] = page(), page(HTML)
    save("/a.json")
    before = (tmp_path / "data/sft/manifest.json").read_bytes()
    for path in ("/b.json", "/none.json"):
        with pytest.raises(UserError):
            save(path, overwrite=True)
    assert (tmp_path / "data/sft/a.json").read_bytes() == JSON
    assert (tmp_path / "data/sft/manifest.json").read_bytes() == before
    assert left(tmp_path / "data") == ["sft", "sft/a.json", "sft/manifest.json"]


def test_what_exists_is_replaced_only_if_told(
    site: Site, save: Callable[..., Any], tmp_path: Path, run_cli: Any
) -> None:
    site["/a.json"], site["/b.json"] = page(), page(b"[]")
    save("/a.json")
    with pytest.raises(
        UserError, match=r"exists already, unchanged since it came from http://\S+/a\.json on .*sha256 "
    ):
        save("/b.json")
    assert save("/a.json", overwrite=True).unchanged
    assert not save("/b.json", overwrite=True).unchanged
    assert [line["sha256"] for line in manifest(tmp_path)] == [hashlib.sha256(b"[]").hexdigest()]
    (tmp_path / "data/sft/a.json").write_bytes(b"[1]")
    with pytest.raises(UserError, match=r"exists already, changed since it came from .*/b\.json.*; set overwrite=true"):
        save("/a.json")
    (tmp_path / "data/sft/own.json").write_bytes(b"[1]")
    with pytest.raises(UserError, match=r"own\.json exists already, manifest\.json does not know it; set overwrite"):
        save("/a.json", filename="own.json")
    asked = len(site.asked)
    outcome = run_cli(
        "crawl", f"url={site.url}/b.json", "category=sft", "filename=a.json", "allow_private=true", "overwrite=true"
    )
    assert (outcome.status, outcome.err, len(site.asked) - asked) == (0, "", 1)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", "[" * 10**5])
def test_a_damaged_manifest_is_not_replaced(site: Site, save: Callable[..., Any], tmp_path: Path, text: str) -> None:
    (tmp_path / "data/sft").mkdir(parents=True)
    (tmp_path / "data/sft/manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json .*; mend it or move it away"):
        save("/a.json")
    assert (tmp_path / "data/sft/manifest.json").read_text() == text
    assert site.asked == []


def test_a_broken_connection_is_gone_on_with_by_the_next_call(
    site: Site, save: Callable[..., Any], tmp_path: Path
) -> None:
    site["/a.json"] = server = Resumable(JSON, breaks=3)
    with pytest.raises(
        UserError, match=rf"broke off at {CUT} of .* bytes; {CUT} bytes are kept, the same again goes on"
    ):
        save("/a.json")
    assert left(tmp_path / "data") == ["sft", "sft/.a.json.part", "sft/.a.json.part.json"]
    assert save("/a.json").sha256 == hashlib.sha256(JSON).hexdigest()
    assert server.seen == [None, *[f"bytes={CUT}-"] * 4]
    assert left(tmp_path / "data") == ["sft", "sft/a.json", "sft/manifest.json"]


def test_a_range_of_thousands_of_digits_is_none(site: Site, save: Callable[..., Any]) -> None:
    """Python reads no integer that long: it was a traceback. The file is begun anew."""
    endless = page(b"", 206, etag='"one"', content_range=f"bytes {'9' * 5000}-1/*")
    answers = iter([page(send=CUT, etag='"one"'), endless, page(etag='"one"')])
    site["/a.json"] = lambda request: next(answers)(request)
    assert save("/a.json").sha256 == hashlib.sha256(JSON).hexdigest()


def test_what_was_kept_goes_when_the_file_is_refused(site: Site, save: Callable[..., Any], tmp_path: Path) -> None:
    site["/a.json"] = Resumable(b"[" + b" " * 2000 + b"}", breaks=3)
    with pytest.raises(UserError, match="are kept"):
        save("/a.json")
    with pytest.raises(UserError, match="is not JSON"):
        save("/a.json")
    assert left(tmp_path) == ["data", "data/sft"], "made by the first call, which left something in it"


LINKS = {
    "sft": "is a link that leads out of",
    "sft/a.json": "is a link to",
    "sft/.a.json.lock": "cannot write",
    "sft/.a.json.part": None,
    "sft/.a.json.part.json": None,
    "sft/manifest.json": None,
}


@pytest.mark.parametrize(("place", "message"), LINKS.items())
def test_nothing_is_written_through_a_link(
    site: Site, save: Callable[..., Any], tmp_path: Path, place: str, message: str | None
) -> None:
    """A data folder may have come out of an archive that others made. Our own files' names are simply taken back."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("[]")
    link = tmp_path / "data" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(outside if place == "sft" else outside / "file")
    site["/a.json"] = page()
    with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
        save("/a.json", overwrite=True)
    assert left(outside) == ["file"]
    assert (outside / "file").read_text() == "[]"


NAMES = {
    "": "printable", " ": "printable", "a\0b": "printable", "a\nb": "printable", "a\u202eb": "printable",
    "a\udcffb": "printable",
    "/etc/passwd": "another folder", "../x": "another folder", "a/b": "another folder", "..": "another folder",
    ".": "another folder", "C:\\x": "another folder", "a/": "another folder",
    ".hidden": "begin with a dot", "a.": "nor end with one", "a ": "nor end with one",
    "a:b": "must not hold :", "a?": "must not hold ?", "NUL": "device", "con.json": "device", "Com1.txt": "device",
    "manifest.json": "record", "Manifest.JSON": "record", "ä" * 101: "at most 200 bytes",
}  # fmt: skip


@pytest.mark.parametrize(("name", "message"), NAMES.items())
def test_names_that_are_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as told:
        place_of(str(tmp_path), "sft", name)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["a.json", "null", "console.json", "été 2.txt", "..a".strip("."), "x" * 200])
def test_names_that_are_taken(name: str, tmp_path: Path) -> None:
    assert place_of(str(tmp_path), "rag", name) == tmp_path / "rag" / name


@pytest.mark.parametrize("out", ["~nobody-of-this-name/x", "a\0b"])
def test_a_folder_that_cannot_be(out: str) -> None:
    with pytest.raises(UserError, match=r"out: .* cannot be a folder"):
        place_of(out, "sft", "a.json")


def test_crawls_at_once(site: Site, save: Callable[..., Any], tmp_path: Path) -> None:
    """Each different file arrives and has its line; of several for one name, one gets it."""
    site["/a.json"] = page()
    ended: list[str] = []

    def one(name: str) -> None:
        try:
            ended.append(save("/a.json", filename=name).file.name)
        except UserError as error:
            ended.append(str(error))

    names = [f"{n}.json" for n in range(12)] + ["same.json"] * 6
    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {line["file"] for line in manifest(tmp_path)} == set(names)
    assert len(manifest(tmp_path)) == 13
    assert set(names) <= set(ended)
    assert [e for e in ended if e not in names and not re.search("another process is fetching|exists already", e)] == []
    assert ended.count("same.json") == 1
    assert left(tmp_path / "data/sft") == sorted({*names, "manifest.json"})


def test_a_crawl_under_way_is_not_waited_for(site: Site, save: Callable[..., Any], tmp_path: Path) -> None:
    """It may take hours; and what it has so far stays."""
    with claimed(tmp_path / "data/sft/a.json", "http://elsewhere/") as part:
        part.file.write_bytes(b"[")
        with pytest.raises(UserError, match=r"another process is fetching .*a\.json; wait for it"):
            save("/a.json")
        assert part.file.read_bytes() == b"["
    assert site.asked == []


def test_a_file_that_came_in_between_is_not_replaced(
    site: Site, save: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our first look and our claim of the place, another process finished the same file."""

    def claimed_late(target: Path, *args: Any, **settings: Any) -> Any:
        target.parent.mkdir(parents=True)
        target.write_bytes(b"[1]")
        return claimed(target, *args, **settings)

    site["/a.json"] = page()
    monkeypatch.setattr(slm.fetch.crawl, "claimed", claimed_late)
    with pytest.raises(UserError, match="exists already"):
        save("/a.json")
    assert (tmp_path / "data/sft/a.json").read_bytes() == b"[1]"


@pytest.mark.parametrize("when", ["the file", "the manifest"])
def test_a_full_disk_is_said_in_a_line(
    site: Site, save: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A mock, since a test cannot fill a disk."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    site["/a.json"] = page()
    place = (slm.fetch.download, "_append") if when == "the file" else (slm.fetch.crawl.os, "fsync")
    monkeypatch.setattr(*place, full)
    with pytest.raises(UserError, match=r"cannot write .*a\.json \(No space left on device\); make room"):
        save("/a.json")
    assert left(tmp_path) == []


def test_jsonl_and_others_are_taken_as_they_are(site: Site, save: Callable[..., Any]) -> None:
    """Lines may be long, blank, end in CR LF or not at all; what is neither JSON nor said to be is anything."""
    site["/l"] = page(b"\xef\xbb\xbf" + JSONL.replace(b"\n", b"\r\n\n") + b'"' + b"x" * 600_000 + b'"')
    site["/t"], site["/z"] = page(HTML, content_type="text/html"), page(b"\x1f\x8b", content_encoding="gzip")
    assert save("/l", filename="l.jsonl").size > 600_000
    assert save("/t", filename="t.html").size == len(HTML)
    assert save("/z", filename="z.json.gz").size == 2


def test_the_script_of_the_known_name(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It fills in what is not given."""
    site["/mine.json"] = page()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sample_instruction_data.py", f"url={site.url}/mine.json", "allow_private=true"])
    runpy.run_path(str(ROOT / "scripts/sample_instruction_data.py"), run_name="__main__")
    assert json.loads(capsys.readouterr().out)["file"] == "data/sft/instruction-data.json"
