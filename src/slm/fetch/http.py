"""Ask an http(s) server for something: verified TLS, few redirects, no endless wait, public addresses if need be."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import ssl
import string
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import quote, urljoin

import httpcore2
import httpx2

import slm
from slm.errors import UserError

_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 429, 500, 502, 503, 504)  # the same server may answer otherwise in a second
_TRIED = 4  # addresses of one name, at most
_LEAST_BYTES_PER_S = 1024
_SHOWN = 200  # characters of what a server says
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# RFC 6052: IPv4 addresses as networks without IPv4 see them, in the last 32 bits
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PROTOCOL_ASSIGNMENTS = ipaddress.IPv4Network("192.0.0.0/24")  # RFC 6890; public for Python before 3.11.10, mostly


class ConnectionBrokenError(Exception):
    """In a way that is worth another try, after the seconds that the server asks for, if it does."""

    def __init__(self, text: str, retry_after: int = 0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Access:
    """How servers are reached."""

    mend: str  # what the user can do instead, for the error messages
    timeout: float = 30.0  # seconds for which a server may say nothing, or send less than 1 KiB a second
    allow_private: bool = True  # else public addresses only, behind a redirect too, and no proxy, which hides them
    to_https: bool = False  # follow a redirect there from http


@dataclass(frozen=True)
class Answer:
    """What a server says to a GET."""

    url: str
    final_url: str  # behind all redirects
    status: int
    headers: Mapping[str, str]  # by names in lower case
    blocks: Iterable[bytes] = ()  # the content as it comes

    @property
    def version(self) -> str | None:
        """What names these very bytes, to ask for the rest of them; a weak ETag (W/"…") does not (RFC 9110, 13.1.5)."""
        etag = self.headers.get("etag", "")
        return etag if etag.startswith('"') else self.headers.get("last-modified")

    @property
    def size(self) -> int | None:
        length = "" if "transfer-encoding" in self.headers else self.headers.get("content-length", "")
        return int(length) if re.fullmatch("[0-9]{1,20}", length) else None

    @property
    def md5(self) -> str | None:
        found = re.fullmatch(r"[A-Za-z0-9+/]{22}==", self.headers.get("content-md5", "").strip())
        return found and found[0]


@contextlib.contextmanager
def get(url: str, headers: Mapping[str, str], access: Access) -> Iterator[Answer]:
    """The answer to a GET: of status 2xx, or 416 where a Range was asked for that the file does not reach.

    `UserError`: no such address can be asked, a redirect leads to another scheme than that of `url` or has no end, a
    refusal (404, …), a certificate that does not hold, an address that is not public. `ConnectionBrokenError`: no
    connection, also later while the content is read, or an answer that may pass (503, …).
    """
    if not url.isprintable():
        raise UserError(f"url must be made of printable characters; got {url!r}")
    try:
        here, redirected = web_url(url, ("http", "https")), False
    except ValueError as problem:
        raise UserError(f"url {problem}; got '{shown(url)}'") from None
    for _ in range(_MAX_REDIRECTS + 1):
        with _asked(here, headers, access) as answer:
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not location:
                _check_status(answer, url, access.mend)
                yield replace(answer, url=url, final_url=str(here) if redirected else url)
                return
        location, redirected = quote(location, safe=string.punctuation, encoding="latin-1"), True
        schemes = ("http", "https") if access.to_https and here.scheme == "http" else (here.scheme,)
        try:
            here = web_url(location, schemes, here)
        except ValueError as problem:
            raise UserError(f"{url} is redirected to {shown(location)}, which {problem}; {access.mend}") from None
    raise UserError(f"{url} is redirected more than {_MAX_REDIRECTS} times; {access.mend}")


def _check_status(answer: Answer, url: str, mend: str) -> None:
    if answer.status // 100 == 2 or answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return
    said = f"the server answers {answer.status}"
    with contextlib.suppress(ValueError):
        said += f" {HTTPStatus(answer.status).phrase}"  # not the server's own words
    if answer.status not in _PASSING:
        raise UserError(f"cannot download {url} ({said}); {mend}")
    if re.fullmatch("[0-9]{1,6}", wait := answer.headers.get("retry-after", "")):
        raise ConnectionBrokenError(f"{said}, and asks to wait {wait} s", int(wait))
    raise ConnectionBrokenError(said)


@contextlib.contextmanager
def _asked(url: httpx2.URL, headers: Mapping[str, str], access: Access) -> Iterator[Answer]:
    asked, network = f"cannot download {shown(str(url))}", Network(access)
    sent = {"User-Agent": f"slm/{slm.__version__}", "Accept-Encoding": "identity", **headers}
    try:
        with _pool(url, access, network) as pool, pool.stream("GET", str(url), headers=sent) as response:
            received = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            yield Answer(str(url), str(url), response.status, received, network.in_time(response.iter_stream()))
    except NotPublicError as error:
        raise UserError(f"{asked} ({error}); set allow_private=true if you trust that place") from error
    except UnicodeError as error:  # parts of a server's name that are empty or too long
        raise UserError(f"{asked} ({shown(str(error))}); {access.mend}") from error
    except httpcore2.TimeoutException as error:
        raise ConnectionBrokenError("it stalled, or sent less than 1 KiB a second") from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError, socket.gaierror) as error:
        if isinstance(reason := error.__context__, ssl.SSLCertVerificationError):
            said = f"its certificate does not hold: {reason.verify_message}"
            mend = f"SSL_CERT_FILE may name a file of authorities that you trust; {access.mend}"
            raise UserError(f"{asked} ({said}); {mend}") from error
        raise ConnectionBrokenError(shown(str(error)) or type(error).__name__) from error


def _pool(url: httpx2.URL, access: Access, network: Network) -> httpcore2.ConnectionPool:
    tls = ssl.create_default_context()
    proxy = urllib.request.getproxies().get(url.scheme)
    if not proxy or urllib.request.proxy_bypass(url.netloc.decode()):
        return httpcore2.ConnectionPool(tls, network_backend=network)
    if not access.allow_private:
        said = "names a proxy, which would connect in our place, to an address that cannot be checked here"
        mend = "set allow_private=true if you trust it, or the environment's no_proxy"
        said = f"cannot download {shown(str(url))} ({url.scheme}_proxy {said})"
        raise UserError(f"{said}; {mend}={url.host} to go without it")
    named = httpx2.Proxy(proxy if "://" in proxy else f"http://{proxy}")
    return httpcore2.HTTPProxy(str(named.url), named.raw_auth, ssl_context=tls, network_backend=network)


class Network(httpcore2.SyncBackend):
    """Connects where `access` allows it, and gives up if no answer comes in time, or less than 1 KiB a second. The
    socket's own timeout is about one receive: a byte, or a header line, now and then would hold us for ever."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._restart()

    def _restart(self) -> None:
        self._came, self._deadline = 0, time.monotonic() + self._access.timeout

    def left(self) -> float:
        """Seconds that the next step may take."""
        if (left := self._deadline - time.monotonic()) <= 0:
            raise httpcore2.ReadTimeout
        return left

    def in_time(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """The same blocks; each that completes 1 KiB a second earns the time for others."""
        self._restart()
        for block in blocks:
            self._came += len(block)
            if self._came >= _LEAST_BYTES_PER_S * self._access.timeout:
                self._restart()
            yield block

    def connect_tcp(self, host: str, port: int, *_: object, **__: object) -> httpcore2.NetworkStream:
        addresses = [host] if self._access.allow_private else public_addresses(host, port)[:_TRIED]
        for tries, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                stream = super().connect_tcp(address, port, self.left() / tries)
                break
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if tries == 1:
                    raise
        self._restart()
        return _TimedStream(stream, self)


class _TimedStream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream, network: Network) -> None:
        self._stream, self._network = stream, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._network.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, self._network.left()), self._network)


def shown(text: str) -> str:
    """An address or what a server says, for a message: short, no password, no characters that a terminal obeys."""
    plain = "".join(character if character.isprintable() else "?" for character in re.sub("//[^/]*@", "//…@", text))
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}…"


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
    """The IP addresses that `host` stands for, in any spelling that the system takes (``127.1``, ``0x7f000001``): who
    connects to these very ones cannot be led elsewhere by a name server that answers otherwise when it is asked again
    ("DNS rebinding"). `NotPublicError`: one of them is not public; OSError where the name is unknown."""
    found = [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in found:
        if kind := why_not_public(address):
            raise NotPublicError(f"{host} is {kind}" if host == address else f"{host} is {address}, {kind}")
    return found


def why_not_public(address: str) -> str | None:
    """What an IPv4 or IPv6 address is, if it is none of a public server: ``"a loopback address"``; else None. An IPv4
    address that travels inside an IPv6 one (6to4, NAT64) is judged as what it is; in the form ``::ffff:…`` it is
    refused, since no name server has a reason to say it so."""
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
