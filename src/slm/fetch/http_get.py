"""Ask an http(s) server for something: verified TLS, few redirects, no endless wait, and no way out of http(s)."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from types import TracebackType
from urllib.parse import urlsplit

import slm
from slm.errors import UserError
from slm.fetch.public_address import NotPublicError, connect_public
from slm.fetch.stall_watch import StallWatch
from slm.fetch.web_address import address_problem, joined, quoted, scheme_of, without_user

_BLOCK = 1 << 18
_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 429, 500, 502, 503, 504)
"""Answers of a server that may give another one in a second."""
_MAX_LENGTH = (1 << 63) - 1
"""What a file can have; a server may claim numbers of thousands of digits."""
_SHOWN = 200
"""Characters of what a server says that a message repeats at most."""


class ConnectionBrokenError(Exception):
    """The connection failed, or the server did, in a way that is worth another try; the text says how.

    Attributes:
        retry_after: seconds the server asks us to wait; 0 if it does not say.
    """

    def __init__(self, text: str, retry_after: int = 0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Access:
    """How servers are reached.

    Attributes:
        timeout: seconds for which a server may say nothing, or send less than 1 KiB a second.
        allow_private: connect to any address; else to public ones only (`slm.fetch.public_address`), also behind a
            redirect, and through no proxy, since it would connect in our place.
        to_https: follow a redirect from http to https.
    """

    timeout: float = 30.0
    allow_private: bool = True
    to_https: bool = False


class Answer:
    """What a server says to a GET; to be closed, for which it is a context manager.

    Attributes:
        url: whose answer it is, behind all redirects.
        status: of HTTP.
        headers: of HTTP.
        length: bytes of its content, if it says so.
    """

    def __init__(self, url: str, response: http.client.HTTPResponse, watch: StallWatch) -> None:
        self.url = url
        self.status = response.status
        self.headers = response.headers
        self.length = None if response.length is None else min(response.length, _MAX_LENGTH)
        self._response = response
        self._watch = watch

    def blocks(self) -> Iterator[bytes]:
        """The content as it comes: `read1` gives what is there, so little is lost when the connection breaks.

        Raises:
            ConnectionBrokenError: it does; an early end of a content of known length is not told apart from its end.
        """
        self._watch.restart()
        try:
            while block := self._response.read1(_BLOCK):
                self._watch.came(len(block))
                yield block
        except (OSError, http.client.HTTPException) as error:
            raise _broken(error, self._watch) from error
        if self._watch.stalled:
            raise _broken(TimeoutError(), self._watch)

    def close(self) -> None:
        """Hang up."""
        self._watch.end()
        self._response.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def get(url: str, headers: Mapping[str, str], mend: str, access: Access) -> Answer:
    """The answer to a GET: of status 2xx, or 416 where a Range was asked for that the file does not reach.

    Args:
        url: http or https.
        headers: sent along, also behind a redirect.
        mend: what the user can do instead, for the error messages.
        access: how servers are reached.

    Raises:
        UserError: no such address can be asked, a redirect leads to another scheme than that of `url` or has no end,
            a refusal (404, …), a certificate that does not hold, an address that is not public.
        ConnectionBrokenError: no connection, or an answer that may pass (503, …).
    """
    if not url.isprintable():
        raise UserError(f"url must be made of printable characters; got {url!r}")
    here = quoted(url, "utf-8")
    if problem := address_problem(here, ("http", "https")):
        raise UserError(f"url {problem}; got '{without_user(url)}'")
    for _ in range(_MAX_REDIRECTS + 1):
        answer = _ask(here, headers, mend, access)
        location = answer.headers["Location"]
        if answer.status not in _REDIRECTS or not location:
            return _accepted(answer, url, mend)
        answer.close()
        schemes = ("http", "https") if access.to_https and scheme_of(here) == "http" else (scheme_of(here),)
        here = joined(here, quoted(location, "iso-8859-1"))
        if scheme_of(here) not in schemes:
            raise UserError(f"{url} is redirected to {shown(here)}, which is not {' or '.join(schemes)}; {mend}")
        if problem := address_problem(here, schemes):
            raise UserError(f"{url} is redirected to {shown(without_user(here))}, which {problem}; {mend}")
    raise UserError(f"{url} is redirected more than {_MAX_REDIRECTS} times; {mend}")


def _ask(url: str, headers: Mapping[str, str], mend: str, access: Access) -> Answer:
    """One request; redirects and refusals come back as they are."""
    if not access.allow_private:
        _refuse_proxy(url)
    request = urllib.request.Request(url, headers={"User-Agent": f"slm/{slm.__version__}", **headers})
    watch = StallWatch(access.timeout)
    try:
        return Answer(url, _opener(access, watch).open(request, timeout=access.timeout), watch)
    except BaseException as error:
        watch.end()
        if isinstance(error, NotPublicError):
            raise UserError(
                f"cannot download {shown(url)} ({error}); set allow_private=true if you trust that place"
            ) from error
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UserError(
                f"cannot download {shown(url)} (its certificate does not hold: {reason.verify_message}); "
                f"SSL_CERT_FILE may name a file of authorities that you trust; {mend}"
            ) from error
        if isinstance(error, (http.client.InvalidURL, UnicodeError)):
            raise UserError(f"cannot download {shown(url)} ({shown(str(error))}); {mend}") from error
        if isinstance(error, (OSError, http.client.HTTPException)):
            raise _broken(error, watch) from error
        raise


def _refuse_proxy(url: str) -> None:
    """Raise `UserError` if the environment wants `url` to be asked through a proxy."""
    parts = urlsplit(url)
    if urllib.request.getproxies().get(parts.scheme) and not urllib.request.proxy_bypass(parts.netloc):
        raise UserError(
            f"cannot download {shown(url)} ({parts.scheme}_proxy names a proxy, which would connect in our place, to "
            f"an address that cannot be checked here); set allow_private=true if you trust it, or the environment's "
            f"no_proxy={parts.hostname} to go without it"
        )


class _Handler(urllib.request.AbstractHTTPHandler):
    """http and https, over connections that `access` allows and `watch` looks after."""

    def __init__(self, access: Access, watch: StallWatch) -> None:
        super().__init__()
        self._access = access
        self._watch = watch

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """As urllib calls it."""
        return self.do_open(partial(self._connection, http.client.HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """As urllib calls it; TLS verifies the name in the address, whatever the connection leads to."""
        context = ssl.create_default_context()
        return self.do_open(partial(self._connection, http.client.HTTPSConnection), request, context=context)

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def _connection(
        self, kind: type[http.client.HTTPConnection], host: str, **settings: object
    ) -> http.client.HTTPConnection:
        connection = kind(host, **settings)  # type: ignore[arg-type]
        connection._create_connection = self._connect  # type: ignore[attr-defined]  # what both kinds connect with
        return connection

    def _connect(self, address: tuple[str, int], timeout: float, _source: object) -> socket.socket:
        if self._access.allow_private:
            connection = socket.create_connection(address, timeout)
        else:
            connection = connect_public(*address, timeout)
        self._watch.begin(connection)
        return connection


def _opener(access: Access, watch: StallWatch) -> urllib.request.OpenerDirector:
    """Of urllib's handlers only those needed: none that follows redirects, reads files or speaks FTP."""
    opener = urllib.request.OpenerDirector()
    if access.allow_private:
        opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(_Handler(access, watch))
    return opener


def _accepted(answer: Answer, url: str, mend: str) -> Answer:
    """The answer itself, unless it is a refusal."""
    if answer.status // 100 == 2 or answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return answer
    answer.close()
    said = f"the server answers {answer.status}"
    with contextlib.suppress(ValueError):
        said += f" {HTTPStatus(answer.status).phrase}"  # not the server's own words
    if answer.status in _PASSING:
        wait = answer.headers.get("Retry-After", "")
        if not re.fullmatch("[0-9]{1,6}", wait):
            raise ConnectionBrokenError(said)
        raise ConnectionBrokenError(f"{said}, and asks to wait {wait} s", int(wait))
    raise UserError(f"cannot download {url} ({said}); {mend}")


def _broken(error: BaseException, watch: StallWatch) -> ConnectionBrokenError:
    if watch.stalled:
        return ConnectionBrokenError("it stalled, or sent less than 1 KiB a second")
    if isinstance(error, http.client.IncompleteRead):
        return ConnectionBrokenError("it broke off before its end")
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
        return ConnectionBrokenError(f"no answer in HTTP, but '{shown(str(error).strip())}'")
    reason = getattr(error, "reason", error)
    return ConnectionBrokenError(shown(str(reason)) or type(reason).__name__)


def shown(text: str) -> str:
    """What a server says, for a message: short, and without the characters that a terminal obeys."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}…"
