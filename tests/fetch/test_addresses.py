"""Which addresses are public, and that a connection goes to the very one that was checked."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import httpcore2
import pytest

from slm.fetch.http import Access, Network, NotPublicError, public_addresses, web_url, why_not_public

REFUSED = {
    "127.0.0.1": "a loopback address",
    "127.255.255.254": "a loopback address",
    "::1": "a loopback address",
    "10.0.0.1": "a private address",
    "172.16.0.1": "a private address",
    "192.168.1.1": "a private address",
    "fd00::1": "a private address",
    "169.254.169.254": "a link-local address",
    "fe80::1%1": "a link-local address",
    "224.0.0.1": "a multicast address",
    "ff02::1": "a multicast address",
    "0.0.0.0": "the unspecified address",
    "::": "the unspecified address",
    "240.0.0.1": "a reserved address",
    "255.255.255.255": "a reserved address",
    "100.64.0.1": "no public address",
    "192.0.0.170": "",
    "198.18.0.1": "a private address",
    "fec0::1": "",
    "::127.0.0.1": "",
    "::ffff:127.0.0.1": "an IPv4 address in the form of an IPv6 one",
    "::ffff:93.184.216.34": "an IPv4 address in the form of an IPv6 one",
    "2002:7f00:1::": "a loopback address",
    "64:ff9b::a00:1": "a private address",
    "64:ff9b:1::1": "",
    "2001:db8::1": "",
    "2001::1": "",
}
PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822", "2002:5db8:d822::"]


@pytest.mark.parametrize(("address", "kind"), REFUSED.items())
def test_what_is_not_public_is_named(address: str, kind: str) -> None:
    assert (why_not_public(address) or "PUBLIC").startswith(kind)
    assert why_not_public(address) is not None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_ones_are_let_through(address: str) -> None:
    assert why_not_public(address) is None


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "::1"])
def test_spellings_of_this_machine(host: str) -> None:
    """What the system would connect to is judged, not how it is written."""
    with pytest.raises(NotPublicError, match="a loopback address"):
        public_addresses(host, 80)


class Internet:
    """A name server with a list of answers, and what was connected to.

    A mock, since a test machine has no public address to connect to.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str], dead: tuple[str, ...] = ()) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.connected: list[str] = []
        self.dead = dead
        monkeypatch.setattr(socket, "getaddrinfo", self.getaddrinfo)
        monkeypatch.setattr(socket, "create_connection", self.create_connection)

    def getaddrinfo(self, host: str, port: int, type: int) -> list[Any]:
        self.asked += 1
        return [(socket.AF_INET, type, 6, "", (address, port)) for address in self.answers.pop(0)]

    def create_connection(self, address: tuple[str, int], *_: object, **__: object) -> Any:
        self.connected.append(address[0])
        if address[0] in self.dead:
            raise TimeoutError
        return SimpleNamespace(setsockopt=lambda *_: None)


def connect(host: str) -> None:
    Network(Access("", 1.0, allow_private=False)).connect_tcp(host, 80)


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name server says a public address first, and this machine's when it is asked again."""
    internet = Internet(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])
    connect("rebinding.test")
    assert (internet.asked, internet.connected) == (1, ["93.184.216.34"])


def test_one_private_address_among_several_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    internet = Internet(monkeypatch, ["93.184.216.34", "10.0.0.1"])
    with pytest.raises(NotPublicError, match=r"many\.test is 10\.0\.0\.1, a private address"):
        connect("many.test")
    assert internet.connected == []


def test_a_few_addresses_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    internet = Internet(monkeypatch, ["1.1.1.1", "1.1.1.2"], [f"1.1.1.{n}" for n in range(100)], dead=("1.1.1.1",))
    connect("two.test")
    assert internet.connected == ["1.1.1.1", "1.1.1.2"]
    internet.dead = tuple(f"1.1.1.{n}" for n in range(100))
    with pytest.raises(httpcore2.ConnectTimeout):
        connect("hundred.test")
    assert len(internet.connected) == 2 + 4


@pytest.mark.parametrize(
    "url", ["http://[x", "http://", "http://:80/", "http://x:99999/", "http://x:0/", "http://x:y/"]
)
def test_an_address_names_a_server(url: str) -> None:
    with pytest.raises(ValueError, match="must name a server, and a port from 1 to 65535 if any"):
        web_url(url, ("http", "https"))
