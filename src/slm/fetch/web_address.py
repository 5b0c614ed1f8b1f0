"""Addresses of http(s): how they are written, and which of them can be asked."""

from __future__ import annotations

import contextlib
import re
import string
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit


def quoted(url: str, encoding: str) -> str:
    """As it travels: no spaces and no letters beyond ASCII, in a server's name by the rules for such names (IDNA).

    Args:
        url: as typed, or as a redirect says it.
        encoding: what its letters stand for as bytes.
    """
    as_it_travels = quote(url, safe=string.punctuation, encoding=encoding)
    with contextlib.suppress(ValueError):
        parts = urlsplit(as_it_travels)
        if not (name := unquote(parts.netloc)).isascii():
            return urlunsplit(parts._replace(netloc=name.encode("idna").decode()))
    return as_it_travels


def joined(here: str, location: str) -> str:
    """The address `location` means at `here`; `location` itself if it is none."""
    try:
        return urljoin(here, location)
    except ValueError:
        return location


def address_problem(url: str, schemes: tuple[str, ...]) -> str | None:
    """Why nobody can be asked for `url`, or None."""
    if scheme_of(url) not in schemes:
        return "must begin with https:// or http://"
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if not parts.hostname or port == 0 or not unquote(parts.netloc).isascii():
        return "must name a server, and a port from 1 to 65535 if any"
    return "must not hold a user's name or password" if "@" in parts.netloc else None


def without_user(url: str) -> str:
    """For a message, which others may read too."""
    return re.sub("//[^/]*@", "//…@", url)


def scheme_of(url: str) -> str:
    """In lower case; empty for what is no address."""
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""
