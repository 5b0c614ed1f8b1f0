"""Ask an http(s) server for something: verified TLS, few redirects, and no way out of the scheme asked for."""

from __future__ import annotations

import http.client
import ssl
import string
import urllib.request
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from urllib.parse import quote, urljoin, urlsplit

import slm
from slm.errors import UserError

_TIMEOUT_S = 30.0
_BLOCK = 1 << 18
_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 429, 500, 502, 503, 504)
"""Answers of a server that may give another one in a second."""


class ConnectionBrokenError(Exception):
    """The connection failed, or the server did, in a way that is worth another try; the text says how."""


def get(url: str, headers: Mapping[str, str], mend: str) -> http.client.HTTPResponse:
    """The answer to a GET: of status 2xx, or 416 where a Range was asked for that the file does not reach.

    Args:
        url: http or https.
        headers: sent along, also behind a redirect.
        mend: what the user can do instead, for the error messages.

    Raises:
        UserError: another scheme, a redirect to another scheme than that of `url` or without end, a refusal (404, …),
            a certificate that does not hold.
        ConnectionBrokenError: no connection, or an answer that may pass (503, …).
    """
    if (scheme := _scheme(url)) not in ("http", "https"):
        raise UserError(f"url must begin with https:// or http://; got '{url}'")
    here = quote(url, safe=string.punctuation)
    for _ in range(_MAX_REDIRECTS + 1):
        response = _ask(here, headers, mend)
        location = response.headers["Location"]
        if response.status not in _REDIRECTS or not location:
            return _accepted(response, url, mend)
        response.close()
        here = _joined(here, quote(location, safe=string.punctuation, encoding="iso-8859-1"))
        if _scheme(here) != scheme:
            raise UserError(f"{url} is redirected to {here}, which is not {scheme}; {mend}")
    raise UserError(f"{url} is redirected more than {_MAX_REDIRECTS} times; {mend}")


def blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The content as it comes: `read1` gives what is there, so little is lost when the connection breaks.

    Raises:
        ConnectionBrokenError: it does; an early end of a content of known length is not told apart from its end.
    """
    try:
        while block := response.read1(_BLOCK):
            yield block
    except (OSError, http.client.HTTPException) as error:
        raise _broken(error) from error


def _ask(url: str, headers: Mapping[str, str], mend: str) -> http.client.HTTPResponse:
    """One request; redirects and refusals come back as they are."""
    request = urllib.request.Request(url, headers={"User-Agent": f"slm/{slm.__version__}", **headers})
    try:
        return _opener().open(request, timeout=_TIMEOUT_S)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, (ssl.SSLCertVerificationError, http.client.InvalidURL)):
            raise UserError(f"cannot download {url} ({reason}); {mend}") from error
        raise _broken(error) from error


def _opener() -> urllib.request.OpenerDirector:
    """Of urllib's handlers only those needed: none that follows redirects, reads files or speaks FTP."""
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    return opener


def _accepted(response: http.client.HTTPResponse, url: str, mend: str) -> http.client.HTTPResponse:
    """The response itself, unless it is a refusal."""
    if response.status // 100 == 2 or response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return response
    response.close()
    said = f"the server answers {response.status} {response.reason}"
    if response.status in _PASSING:
        raise ConnectionBrokenError(said)
    raise UserError(f"cannot download {url} ({said}); {mend}")


def _broken(error: Exception) -> ConnectionBrokenError:
    reason = getattr(error, "reason", error)
    return ConnectionBrokenError(str(reason) or type(reason).__name__)


def _joined(here: str, location: str) -> str:
    """The address `location` means at `here`; `location` itself if it is none."""
    try:
        return urljoin(here, location)
    except ValueError:
        return location


def _scheme(url: str) -> str:
    """In lower case; empty for what is no address."""
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""
