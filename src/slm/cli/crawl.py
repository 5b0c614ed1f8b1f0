"""slm-crawl: a remote file into the data folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.result import Result

if TYPE_CHECKING:
    from slm.fetch.crawl import CrawlConfig


def crawl(_: dict[str, Any], config: CrawlConfig) -> Result:
    """The command's task."""
    from slm.fetch.crawl import crawl as save
    from slm.notices import notice

    saved = save(config)
    if saved.unchanged:
        notice(f"{saved.file} held the same already")
    return Result({"file": str(saved.file), "bytes": saved.size, "sha256": saved.sha256})


def _checked(values: dict[str, Any]) -> CrawlConfig:
    from slm.fetch.crawl import CrawlConfig
    from slm.schema import checked

    return checked(CrawlConfig, values)


_LITERAL = ("url", "category", "filename", "out")
main = entry_point(Command("crawl", crawl, _checked, literal=_LITERAL), __name__)
