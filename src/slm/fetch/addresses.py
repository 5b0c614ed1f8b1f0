"""Which addresses of the web can be asked, and which of them are public: not this machine, its network, a cloud's."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urljoin

import httpx2

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# RFC 6052: IPv4 addresses as networks without IPv4 see them, in the last 32 bits
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PROTOCOL_ASSIGNMENTS = ipaddress.IPv4Network("192.0.0.0/24")  # RFC 6890; public for Python before 3.11.10, mostly


class NotPublicError(Exception):
    """A name stands for an address that is not public; the text says which, and what it is."""


def web_url(text: str, schemes: tuple[str, ...], here: httpx2.URL | None = None) -> httpx2.URL:
    """The address that `text` is, or means as a link at `here`; `ValueError` says why nobody can be asked for it."""
    mend = "must name a server, and a port from 1 to 65535 if any"
    try:
        url = httpx2.URL(urljoin(str(here), text) if here else text)
    except (httpx2.InvalidURL, ValueError):
        raise ValueError(mend) from None
    if url.scheme not in schemes:
        raise ValueError("must begin with https:// or http://" if here is None else f"is not {' or '.join(schemes)}")
    if not re.fullmatch(rb"[\w.~:-]+", url.raw_host) or not (url.port is None or 1 <= url.port <= 65535):
        raise ValueError(mend)
    if url.userinfo:
        raise ValueError("must not hold a user's name or password")
    return url


def public_addresses(host: str, port: int) -> list[str]:
    """The IP addresses that `host` stands for, in any spelling that the system takes (``127.1``, ``0x7f000001``).

    Whoever connects to these very addresses cannot be led elsewhere by a name server that answers differently when it
    is asked again ("DNS rebinding").

    Raises:
        NotPublicError: one of them is not public; OSError where the name is unknown.
    """
    found = [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in found:
        if kind := why_not_public(address):
            raise NotPublicError(f"{host} is {kind}" if host == address else f"{host} is {address}, {kind}")
    return found


def why_not_public(address: str) -> str | None:
    """What an IPv4 or IPv6 address is, if it is none of a public server: ``"a loopback address"``; else None.

    An IPv4 address that travels inside an IPv6 one (6to4, NAT64) is judged as what it is; in the form ``::ffff:…`` it
    is refused, since no name server has a reason to say it so.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return "an IPv4 address in the form of an IPv6 one"
        ip = ip.sixtofour or (ipaddress.IPv4Address(ip.packed[12:]) if ip in _NAT64 else ip)
    for kind in ("loopback", "link_local", "multicast", "unspecified", "reserved", "private"):
        if getattr(ip, f"is_{kind}"):
            return f"{'the' if kind == 'unspecified' else 'a'} {kind.replace('_', '-')} address"
    elsewhere = ip in _PROTOCOL_ASSIGNMENTS if ip.version == 4 else ip not in _GLOBAL_UNICAST
    return "no public address" if elsewhere or not ip.is_global else None
