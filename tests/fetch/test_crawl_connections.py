"""Whom `slm-crawl` connects to, whom it believes, and how long it waits."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from local_site import JSON, Site, left, page, raw, to

import slm.fetch.download
import slm.fetch.http
from slm.errors import UserError


class Internet(list[str]):
    """The public addresses that were connected to; on all of them, at any port, answers what listens at `port`."""

    port = 0


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch, site: Site) -> Internet:
    """public.test is a public address, where `site` answers.

    A mock, since a test machine is no public server.
    """
    connected, connect = Internet(), socket.create_connection
    connected.port = site.port

    def routed(address: tuple[str, int], *args: Any, **settings: Any) -> socket.socket:
        if address[0].startswith("93.184."):
            connected.append(address[0])
            address = ("127.0.0.1", connected.port)
        return connect(address, *args, **settings)

    def look_up(host: str, port: int, type: int) -> list[Any]:
        known = {"public.test": "93.184.216.34", "other.test": "93.184.216.35", "inside.test": "10.0.0.1"}
        return socket.getaddrinfo(known.get(host, host), port, socket.AF_INET, type)

    monkeypatch.setattr(socket, "create_connection", routed)
    shim = SimpleNamespace(getaddrinfo=look_up, SOCK_STREAM=socket.SOCK_STREAM, gaierror=socket.gaierror)
    monkeypatch.setattr(slm.fetch.http, "socket", shim)
    return connected


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://127.0.0.1:80/", "127.0.0.1 is a loopback address"),
        ("http://localhost/", "localhost is 127.0.0.1, a loopback address"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254 is a link-local address"),
        ("//inside.test/", "inside.test is 10.0.0.1, a private address"),
        ("http://0/", "0 is 0.0.0.0, the unspecified address"),
    ],
)
def test_a_redirect_to_a_private_address_is_refused(
    site: Site, save: Callable[..., Any], internet: Internet, tmp_path: Path, location: str, message: str
) -> None:
    site["/a.json"], site["/b.json"] = to("http://other.test/b.json"), to(location)
    with pytest.raises(UserError, match=rf"{re.escape(message)}\); set allow_private=true if you trust that place"):
        save("http://public.test/a.json", allow_private=False)
    assert internet == ["93.184.216.34", "93.184.216.35"], "nobody else was connected to"
    assert left(tmp_path) == []


def test_where_a_redirect_led_is_recorded(
    site: Site, save: Callable[..., Any], internet: Internet, tmp_path: Path
) -> None:
    """Without the query, where stores of files put signatures that let anyone in for a while."""
    site["/a.json"], site["/b.json"] = to("//other.test/b.json?signature=secret", 307), page()
    save("http://public.test/a.json", allow_private=False)
    (line,) = json.loads((tmp_path / "data/sft/manifest.json").read_text())
    assert (line["url"], line["final_url"]) == ("http://public.test/a.json", "http://other.test/b.json")


def test_a_proxy_is_used_only_if_told(
    site: Site, save: Callable[..., Any], internet: Internet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy connects in our place, so no address can be checked; its password stays out of the message."""
    site["/a.json"] = site["http://inside.test/a.json"] = page()
    monkeypatch.setenv("http_proxy", f"http://me:secret@localhost:{site.port}")
    with pytest.raises(
        UserError, match=r"http_proxy names a proxy, .*allow_private=true .* no_proxy=public\.test"
    ) as told:
        save("http://public.test/a.json", allow_private=False)
    assert "secret" not in str(told.value)
    assert (site.asked, left(tmp_path)) == ([], [])
    save("http://inside.test/a.json", allow_private=True)
    monkeypatch.setenv("no_proxy", "public.test")
    save("http://public.test/a.json", allow_private=False, overwrite=True)
    assert site.asked == ["http://inside.test/a.json", "/a.json"]


def test_certificates_are_verified(
    tls_site: Site, save: Callable[..., Any], tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls_site["/a.json"] = page()
    with pytest.raises(
        UserError, match=r"certificate does not hold: self-signed certificate\); SSL_CERT_FILE may name"
    ):
        save(f"{tls_site.url}/a.json")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(UserError, match="certificate does not hold: IP address mismatch"):
        save(f"https://127.0.0.1:{tls_site.port}/a.json")
    assert (tls_site.asked, left(tmp_path)) == ([], [])
    assert save(f"{tls_site.url}/a.json").size == len(JSON)


def test_a_checked_address_keeps_its_name_for_tls(
    site: Site, tls_site: Site, save: Callable[..., Any], internet: Internet, certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """We connect to the address that was looked up; the certificate must be that of the name all the same. Up to
    https a redirect is followed, and not down again."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    internet.port = tls_site.port
    tls_site["/a.json"], tls_site["/down"] = page(), to("http://public.test/a.json")
    save("https://public.test/a.json", allow_private=False)
    with pytest.raises(UserError, match=r"certificate does not hold: Hostname mismatch.*not valid for 'other\.test'"):
        save("https://other.test/a.json", allow_private=False, overwrite=True)
    with pytest.raises(UserError, match=r"redirected to http://public\.test/a\.json, which is not https;"):
        save("https://public.test/down", allow_private=False, overwrite=True)
    site["/up"] = to(f"{tls_site.url}/a.json")
    save("/up", overwrite=True)


STALLS = {
    "no answer": raw(again=b"", every=0.0),
    "a header line that never ends": raw(b"HTTP/1.1 200 OK\r\nA: ", again=b"b", every=0.02),
    "headers to come": raw(again=b"HTTP/1.1 100 Continue\r\n\r\n", every=0.02),
    "a drop now and then": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[", again=b" ", every=0.02),
    "a drop now and then of unknown length": raw(b"HTTP/1.1 200 OK\r\n\r\n[]", again=b" ", every=0.02),
    "trailers without end": raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n", again=b"A: b\r\n", every=0.02
    ),
}


@pytest.mark.parametrize("kind", STALLS)
@pytest.mark.parametrize("secure", [False, True])
def test_nobody_keeps_us_waiting(
    site: Site, save: Callable[..., Any], tmp_path: Path, kind: str, secure: bool,
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each byte or line ends a socket's own timeout; a try of 0.2 s must be over in little more all the same."""
    monkeypatch.setattr(slm.fetch.download, "_VAIN_TRIES", 1)
    if secure:
        site = request.getfixturevalue("tls_site")
        monkeypatch.setenv("SSL_CERT_FILE", str(request.getfixturevalue("certificate")))
    site["/a.json"] = STALLS[kind] if kind != "no answer" else lambda _: time.sleep(2)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"stalled, or sent less than 1 KiB a second|timed out"):
        save(f"{site.url}/a.json", timeout=0.2)
    assert time.monotonic() - start < 3
    assert left(tmp_path) == []


def test_a_byte_a_try_is_no_way_to_send_a_file(
    site: Site, save: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try brings something, so none of them counted as a failure: a file of 2 GB would take years."""
    monkeypatch.setattr(slm.fetch.download, "_MOST_TRIES", 20)

    def drop(request: BaseHTTPRequestHandler) -> None:
        start = len(site.asked) - 1
        span = {"content_range": f"bytes {start}-9999/10000"} if start else {}
        page(b" " * (10000 - start), 206 if start else 200, 1, etag='"one"', **span)(request)

    site["/a.json"] = drop
    with pytest.raises(UserError, match="it broke off 20 times; 20 bytes are kept"):
        save("/a.json")
