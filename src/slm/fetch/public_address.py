"""Connections to public addresses only: none to this machine, its network or a cloud's metadata service."""

from __future__ import annotations

import ipaddress
import socket
import time

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: IPv4 addresses as networks without IPv4 see them, in the last 32 bits."""
_PROTOCOL_ASSIGNMENTS = ipaddress.IPv4Network("192.0.0.0/24")
"""RFC 6890; Python before 3.11.10 takes most of it for public."""
_TRIED = 4
"""Addresses of one name that are tried at most."""


class NotPublicError(Exception):
    """A name stands for an address that is not public; the text says which, and what it is."""


def connect_public(host: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection to `host`, refused before it is made unless all addresses that `host` stands for are public.

    The name is looked up once and the connection goes to the very addresses that were checked, so that a name server
    cannot answer differently in between ("DNS rebinding").

    Args:
        host: a name, or an address in any spelling that the system takes (``127.1``, ``0x7f000001``, ``::1``).
        port: 1 to 65535.
        timeout: seconds for all tries together; the connection keeps it for each later send and receive.

    Raises:
        NotPublicError: an address is not public.
        OSError: the name is unknown, or nobody answers.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, address in found:
        if kind := why_not_public(str(address[0])):
            raise NotPublicError(f"{host} is {kind}" if host == address[0] else f"{host} is {address[0]}, {kind}")
    deadline = time.monotonic() + timeout
    tried, failure = found[:_TRIED], OSError(f"{host} has no address")
    for n, (family, kind_of_socket, protocol, _, address) in enumerate(tried):
        connection = socket.socket(family, kind_of_socket, protocol)
        try:
            connection.settimeout(max((deadline - time.monotonic()) / (len(tried) - n), 0.01))
            connection.connect(address)
            connection.settimeout(timeout)
            return connection
        except OSError as error:
            connection.close()
            failure = error
    raise failure


def why_not_public(address: str) -> str | None:
    """What an IPv4 or IPv6 address is, if it is none of a public server: ``"a loopback address"``; else None.

    An IPv4 address that travels inside an IPv6 one (6to4, NAT64) is judged as what it is; in the form ``::ffff:…`` it
    is refused, since no name server has a reason to say it so.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return "an IPv4 address in the form of an IPv6 one"
        inner = ip.sixtofour or (ipaddress.IPv4Address(ip.packed[12:]) if ip in _NAT64 else None)
        if inner is not None:
            return _named(inner)
    return _named(ip)


def _named(ip: _Address) -> str | None:
    special = {
        "a loopback address": ip.is_loopback,
        "a link-local address": ip.is_link_local,
        "a multicast address": ip.is_multicast,
        "the unspecified address": ip.is_unspecified,
        "a reserved address": ip.is_reserved,
        "a private address": ip.is_private,
    }
    for name, applies in special.items():
        if applies:
            return name
    if isinstance(ip, ipaddress.IPv6Address):
        public = ip.is_global and ip in _GLOBAL_UNICAST
    else:
        public = ip.is_global and ip not in _PROTOCOL_ASSIGNMENTS
    return None if public else "no public address"
