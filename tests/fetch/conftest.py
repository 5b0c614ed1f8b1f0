"""Servers of our own for what is fetched."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_site import Site

import slm.fetch.download
from slm.fetch.crawl import CrawlConfig, crawl
from slm.schema import checked


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between tries, no proxy of this machine."""
    monkeypatch.setattr(slm.fetch.download, "_PAUSE_S", 0.0)
    monkeypatch.setattr(slm.fetch.download, "_VAIN_TRIES", 3)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def site(quick: None) -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed, for localhost and public.test, with its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("a certificate is made with the openssl command, which is not there")
    folder = tmp_path_factory.mktemp("tls")
    command = (
        f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test "
        "-addext subjectAltName=DNS:localhost,DNS:public.test -keyout key.pem -out certificate.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return both


@pytest.fixture
def tls_site(quick: None, certificate: Path) -> Iterator[Site]:
    site = Site(certificate)
    yield site
    site.close()


@pytest.fixture
def save(site: Site, tmp_path: Path) -> Callable[..., Any]:
    """``save("/a.json", filename="a.json")``: from the site into ``data/sft``."""

    def save(path: str, **settings: Any) -> Any:
        defaults = {
            "url": path if "://" in path else site.url + path,
            "category": "sft",
            "filename": "a.json",
            "out": str(tmp_path / "data"),
            "max_size": 10**6,
            "timeout": 5.0,
            "overwrite": False,
            "allow_private": True,
        }
        return crawl(checked(CrawlConfig, {**defaults, **settings}))

    return save
