"""Fetch one file: verified TLS, checked, and in its place only when whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request
from pathlib import Path

from slm.errors import UserError

_TIMEOUT_S = 30.0
_BLOCK = 1 << 20


def download(url: str, target: Path, sha256: str, mend: str) -> None:
    """Fetch `url` into `target`, written beside it and renamed once its checksum holds.

    Args:
        url: http or https; certificates are verified.
        target: the file to make; its folder is made if need be.
        sha256: hex digest the content must have.
        mend: what the user can do instead, for the error message.

    Raises:
        UserError: it cannot be reached, breaks off, or has another checksum; nothing is left behind.
    """
    if not url.startswith(("https://", "http://")):
        raise UserError(f"url must begin with https:// or http://; got '{url}'")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    digest = hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as out, urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            while block := response.read(_BLOCK):
                digest.update(block)
                out.write(block)
        if digest.hexdigest() != sha256:
            raise UserError(f"{url} has the checksum {digest.hexdigest()}, expected {sha256}; {mend}")
        os.chmod(name, 0o644)  # a temporary file is its owner's alone
        os.replace(name, target)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"cannot download {url} ({reason}); with no network, {mend}") from error
    finally:
        Path(name).unlink(missing_ok=True)
