"""slm-crawl: a remote file into the data folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from slm.cli.app import run_app
from slm.cli.command import Command

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from slm.fetch.crawl_config import CrawlConfig


def crawl(cfg: DictConfig) -> None:
    """The Hydra task."""
    from slm.fetch.crawl import crawl as save
    from slm.notices import notice

    saved = save(_checked(cfg)[1])
    if saved.unchanged:
        notice(f"{saved.file} held the same already")
    print(json.dumps({"file": str(saved.file), "bytes": saved.size, "sha256": saved.sha256}))


def _checked(cfg: DictConfig) -> tuple[dict[str, Any], CrawlConfig]:
    """The settings as plain types and as typed ones; raises `UserError` with all that is wrong."""
    from slm.cli.composition import checked_values
    from slm.fetch.crawl_config import CrawlConfig

    return checked_values(cfg, CrawlConfig.from_dict)


def main() -> None:
    """Entry point."""
    run_app(Command("crawl", crawl, _checked, literal=("url", "category", "filename", "out")))


if __name__ == "__main__":
    main()
