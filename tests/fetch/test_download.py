"""Downloads, against a server of our own: what breaks is resumed, what is wrong leaves nothing behind."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import slm.fetch.download
from slm.errors import UserError
from slm.fetch.download import download

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CUT = 4000


@dataclass
class Site:
    """What the server gives, how it behaves, and what it saw.

    Attributes:
        cuts: for each request to come, the bytes of its content after which the connection is closed.
        framing: how the end of the content is told: "length", "chunked" or, as of old, "close".
        location: where every request is redirected to; "{n}" in it counts up.
        surplus: bytes sent after the end of the content.
        seen: (path, Range, bytes sent) of each request.
    """

    url: str
    content: bytes = CONTENT
    etag: str | None = '"one"'
    md5: str | None = None
    status: int = 200
    knows_range: bool = True
    knows_if_range: bool = True
    framing: str = "length"
    location: str | None = None
    surplus: int = 0
    cuts: list[int] = field(default_factory=list)
    seen: list[tuple[str, str | None, int]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        whole = site.status == 200 and site.location is None
        same = self.headers["If-Range"] == site.etag or not site.knows_if_range
        asked = self.headers["Range"] if whole and same and site.knows_range else None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        body = site.content[start:] + b"x" * site.surplus if whole else b""
        sent = body[: site.cuts.pop(0)] if site.cuts else body
        site.seen.append((self.path, self.headers["Range"], len(sent)))
        self.head(start, len(body))
        if site.framing == "chunked":
            self.wfile.write(b"%x\r\n" % len(body))
        self.wfile.write(sent)
        if site.framing == "chunked" and sent == body:
            self.wfile.write(b"\r\n0\r\n\r\n")

    def head(self, start: int, length: int) -> None:
        site = self.site
        self.send_response(302 if site.location is not None else 206 if start else site.status)
        headers = {
            "Location": site.location and site.location.format(n=len(site.seen)),
            "Content-Length": str(length) if site.framing == "length" else None,
            "Transfer-Encoding": "chunked" if site.framing == "chunked" else None,
            "Content-Range": f"bytes {start}-{len(site.content) - 1}/{len(site.content)}" if start else None,
            "ETag": site.etag,
            "Content-MD5": site.md5,
        }
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(slm.fetch.download, "_PAUSE_S", 0.0)
    monkeypatch.setattr(slm.fetch.download, "_VAIN_TRIES", 3)
    monkeypatch.setenv("no_proxy", "*")
    handler = type("SiteHandler", (Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.site = Site(url=f"http://127.0.0.1:{server.server_address[1]}/file.bin")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield handler.site
        server.shutdown()


@pytest.fixture
def fetch(site: Site, tmp_path: Path) -> Callable[..., Path]:
    """``fetch()`` downloads the site's file; gives the target."""

    def fetch(**settings: Any) -> Path:
        target = tmp_path / "new" / "file.bin"
        download(site.url, target, **{"sha256": SHA256, "size": len(CONTENT), "mend": "ask a friend", **settings})
        return target

    return fetch


def files(tmp_path: Path) -> set[str]:
    return {file.name for file in (tmp_path / "new").glob("*")}


def test_a_file_arrives_whole_and_is_not_fetched_twice(
    site: Site, fetch: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    site.md5 = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
    before = os.umask(0o077)
    try:
        target = fetch()
    finally:
        os.umask(before)
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mode & 0o777 == 0o644
    assert fetch(sha256=SHA256.upper()) == target
    assert fetch(sha256=None, size=None) == target
    assert len(site.seen) == 1
    assert files(tmp_path) == {"file.bin"}
    assert capfd.readouterr() == ("", ""), "a bar is for terminals"


def test_a_file_of_another_size_or_content_is_replaced(site: Site, fetch: Callable[..., Path]) -> None:
    target = fetch()
    for damaged in (CONTENT[:-1], CONTENT[:-1] + b"x"):
        target.write_bytes(damaged)
        assert fetch().read_bytes() == CONTENT
    assert len(site.seen) == 3


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_cut_connection_is_resumed(site: Site, fetch: Callable[..., Path], tmp_path: Path, framing: str) -> None:
    """Only the rest travels. More cuts than tries are survived, as long as each try brings something."""
    site.framing = framing
    site.cuts = [CUT, 0, 1000, 0, 1000]
    assert fetch().read_bytes() == CONTENT
    at = [CUT, CUT, CUT + 1000, CUT + 1000, CUT + 2000]
    assert [asked for _, asked, _ in site.seen] == [None, *(f"bytes={start}-" for start in at)]
    assert sum(sent for *_, sent in site.seen) == len(CONTENT)
    assert files(tmp_path) == {"file.bin"}


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(
    site: Site, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    site.cuts = [CUT, 0, 0, 0]
    with pytest.raises(UserError, match=r"broke off at 4000 of 10240 bytes; 4000 bytes are kept.*ask a friend") as told:
        fetch()
    assert "\n" not in str(told.value)
    assert files(tmp_path) == {".file.bin.part", ".file.bin.part.json"}
    assert fetch().read_bytes() == CONTENT
    assert site.seen[-1][1:] == (f"bytes={CUT}-", len(CONTENT) - CUT)
    assert files(tmp_path) == {"file.bin"}


def test_ctrl_c_leaves_the_part_for_the_next_call(
    site: Site, fetch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    site.cuts = [CUT]
    monkeypatch.setattr(slm.fetch.download.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch()
    fetch()
    assert site.seen[-1][1:] == (f"bytes={CUT}-", len(CONTENT) - CUT)


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_halves_of_two_versions_are_never_glued(site: Site, fetch: Callable[..., Path], knows_if_range: bool) -> None:
    """No checksum is known here and the sizes are equal: nothing but the ETag tells the versions apart."""
    site.cuts, site.knows_if_range = [CUT, 0, 0, 0], knows_if_range
    with pytest.raises(UserError, match="are kept"):
        fetch()
    site.content, site.etag = CONTENT[::-1], '"two"'
    assert fetch(sha256=None).read_bytes() == CONTENT[::-1]


def test_a_part_of_another_address_is_not_gone_on_with(site: Site, fetch: Callable[..., Path], tmp_path: Path) -> None:
    site.cuts = [CUT, 0, 0, 0]
    with pytest.raises(UserError):
        fetch()
    download(f"{site.url}?mirror", tmp_path / "new" / "file.bin", sha256=SHA256, mend="")
    assert site.seen[-1] == ("/file.bin?mirror", None, len(CONTENT))


NONSENSE = (
    "[]",
    "{}",
    "[" * 10**5,
    '{"url": URL, "final_url": 1, "headers": {"etag": "\\"one\\""}}',
    '{"url": URL, "final_url": "", "headers": []}',
    '{"url": URL, "final_url": "", "headers": {"etag": 1}}',
)


@pytest.mark.parametrize("note", NONSENSE, ids=lambda note: note[:60])
def test_a_note_that_others_made_is_not_believed(
    site: Site, fetch: Callable[..., Path], tmp_path: Path, note: str
) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/.file.bin.part").write_bytes(b"x")
    (tmp_path / "new/.file.bin.part.json").write_text(note.replace("URL", f'"{site.url}"'))
    assert fetch().read_bytes() == CONTENT
    assert [asked for _, asked, _ in site.seen] == [None]
    assert files(tmp_path) == {"file.bin"}


@pytest.mark.parametrize("lack", ["knows_range", "etag"])
def test_without_range_or_a_version_it_starts_over(site: Site, fetch: Callable[..., Path], lack: str) -> None:
    setattr(site, lack, None)
    site.cuts = [CUT]
    assert fetch().read_bytes() == CONTENT
    assert [sent for *_, sent in site.seen] == [CUT, len(CONTENT)]
    assert site.seen[-1][1] == (f"bytes={CUT}-" if lack == "knows_range" else None)


@pytest.mark.parametrize(("framing", "found"), [("length", "10240 bytes, "), ("close", "[0-9]+ bytes or more, ")])
def test_another_size_is_found_as_soon_as_it_shows(
    site: Site, fetch: Callable[..., Path], tmp_path: Path, framing: str, found: str
) -> None:
    """Before the content travels, or before more of it does than was wanted."""
    site.framing, site.cuts = framing, [0] if framing == "length" else []
    with pytest.raises(UserError, match=f"has {found}expected 1; ask a friend"):
        fetch(size=1)
    assert len(site.seen) == 1
    assert files(tmp_path) == set()


def test_more_than_was_said_is_refused(site: Site, fetch: Callable[..., Path], tmp_path: Path) -> None:
    """The rest of a file, in chunks: nothing else says where it ends, and it could fill the disk."""
    site.cuts = [CUT, 0, 0, 0]
    with pytest.raises(UserError, match="are kept"):
        fetch(sha256=None, size=None)
    site.framing, site.surplus = "chunked", 100
    with pytest.raises(UserError, match="came as 10340 bytes or more, the server says 10240; ask a friend"):
        fetch(sha256=None, size=None)
    assert files(tmp_path) == set()


WRONG = {
    "size": ({}, {"size": 10239}, r"has 10240 bytes, expected 10239; ask a friend"),
    "checksum": ({}, {"sha256": "0" * 64}, f"has the checksum {SHA256}, expected 000"),
    "MD5": ({"md5": "AAAAAAAAAAAAAAAAAAAAAA=="}, {}, "the server says AAAAAAAAAAAAAAAAAAAAAA==; ask a friend"),
    "404": ({"status": 404}, {}, r"/file.bin \(the server answers 404 Not Found\); ask a friend"),
    "to a file": ({"location": "file:///etc/passwd"}, {}, "redirected to file:///etc/passwd, which is not http;"),
    "to ftp": ({"location": "ftp://127.0.0.1/x"}, {}, "redirected to ftp://127.0.0.1/x, which is not http;"),
    "to https": ({"location": "https://127.0.0.1/x"}, {}, "redirected to https://127.0.0.1/x, which is not http;"),
    "to nowhere": ({"location": "http://[x"}, {}, r"redirected to http://\[x, which must name a server"),
    "in a loop": ({"location": "/file.bin"}, {}, "redirected more than 5 times; ask a friend"),
    "without end": ({"location": "/{n}"}, {}, "redirected more than 5 times; ask a friend"),
}


@pytest.mark.parametrize(("behaviour", "settings", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("resumed", [False, True])
def test_what_is_wrong_is_said_in_a_line_and_leaves_nothing(
    site: Site,
    fetch: Callable[..., Path],
    tmp_path: Path,
    behaviour: dict[str, Any],
    settings: dict[str, Any],
    message: str,
    resumed: bool,
) -> None:
    """Also of a file whose first part came in an earlier call, with its MD5."""
    if resumed:
        site.cuts, site.md5 = [CUT, 0, 0, 0], behaviour.get("md5")
        with pytest.raises(UserError):
            fetch()
        assert files(tmp_path) != set()
    for name, value in behaviour.items():
        setattr(site, name, value)
    with pytest.raises(UserError, match=message) as told:
        fetch(**settings)
    assert "\n" not in str(told.value)
    assert files(tmp_path) == set()


def test_a_busy_server_is_asked_again(site: Site, fetch: Callable[..., Path]) -> None:
    site.status = 503
    with pytest.raises(UserError, match=r"503 Service Unavailable\); with no network, ask a friend"):
        fetch()
    assert len(site.seen) == 3


def test_nobody_there_is_said_in_a_line(tmp_path: Path, site: Site) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_address[1]
    with pytest.raises(UserError, match=r"refused\); with no network, ask a friend"):
        download(f"http://127.0.0.1:{port}/x", tmp_path / "x", sha256=None, mend="ask a friend")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/etc/passwd"])
def test_only_http_is_asked(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must begin with https:// or http://"):
        download(url, tmp_path / "x", sha256=None, mend="")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_in_a_line(
    site: Site, fetch: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mock, since a test cannot fill a disk."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(slm.fetch.download, "_append", full)
    with pytest.raises(UserError, match=r"cannot write .*file.bin \(No space left on device\); make room"):
        fetch()
    assert files(tmp_path) == set()


def test_processes_that_want_one_file_fetch_it_once(site: Site, fetch: Callable[..., Path], tmp_path: Path) -> None:
    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "new" / "file.bin").read_bytes() == CONTENT
    assert len(site.seen) == 1


def test_a_terminal_sees_a_bar_on_stderr(
    fetch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    fetch()
    assert "file.bin" in sys.stderr.getvalue()
    assert "10.2/10.2 kB" in sys.stderr.getvalue()
    assert capsys.readouterr().out == ""
