"""slm-crawl: a remote file into the data folder."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from slm.cli.app import run_app
from slm.cli.command import Command
from slm.cli.given_model import checked_values

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from slm.fetch.crawl import CrawlConfig


def crawl(cfg: DictConfig) -> None:
    """The Hydra task."""
    from slm.fetch.crawl import crawl as save
    from slm.notices import notice

    saved = save(_checked(cfg)[1])
    if saved.unchanged:
        notice(f"{saved.file} held the same already")
    print(json.dumps({"file": str(saved.file), "bytes": saved.size, "sha256": saved.sha256}))


def _checked(cfg: DictConfig) -> tuple[dict[str, Any], CrawlConfig]:
    from slm.fetch.crawl import CrawlConfig
    from slm.schema import checked

    return checked_values(cfg, partial(checked, CrawlConfig))


main = partial(run_app, Command("crawl", crawl, _checked, literal=("url", "category", "filename", "out")))

if __name__ == "__main__":
    main()
