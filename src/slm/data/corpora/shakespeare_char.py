"""Tiny Shakespeare, the 1.1 MB of plays that small character models are compared on."""

from __future__ import annotations

from pathlib import Path

from slm.data.corpora.text import find_files
from slm.registry import register_corpus

_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@register_corpus("shakespeare_char")
def shakespeare_char(path: str | None, url: str, download_dir: str) -> list[Path]:
    """The one file at `path`; without one, `download_dir`'s, fetched from `url` unless the known text is there already.

    Raises:
        UserError: the file is missing, or cannot be downloaded, or is not the known text.
    """
    if path is not None:
        return find_files(path, patterns=["*.txt"])
    from slm.fetch.download import download  # an HTTP library takes 0.2 s to import

    file = Path(download_dir).expanduser() / "tinyshakespeare.txt"
    download(url, file, sha256=_SHA256, mend="set data.path to a copy of tinyshakespeare.txt")
    return [file]
