"""slm-crawl: a remote file into the data folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from slm.cli.app import App, run_app
from slm.cli.help import Help

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from slm.fetch.crawl_config import CrawlConfig

HELP = Help(
    summary="Fetch a remote file into the data folder, as OUT/CATEGORY/FILENAME, and record it in the manifest.json "
    "beside it (url, time, size, sha256). What breaks off is resumed; what is refused leaves nothing behind. Without a "
    "proxy: one is used only with allow_private=true, since it connects where we cannot check the address.",
    usage="url=URL category=sft|rl|rag filename=NAME [key=value …]",
    examples=[
        ("slm-crawl url=https://example.org/alpaca.json category=sft filename=alpaca.json", "to data/sft/alpaca.json"),
        (
            "slm-crawl url=https://example.org/pairs.jsonl category=rl filename=pairs.jsonl max_size=10GB",
            "a larger one",
        ),
        (
            "slm-crawl url=http://192.168.1.5/notes.txt category=rag filename=notes.txt allow_private=true",
            "from your own network",
        ),
    ],
    settings=[
        ("url", "http or https; certificates are verified (SSL_CERT_FILE names other authorities)"),
        ("category", "sft (instructions), rl (preferences) or rag (documents to look up)"),
        ("filename", "a plain name; what ends in .json or .jsonl is checked to be that"),
        ("out", "the data folder; default data"),
        ("max_size", "the file may have, at most; default 2GB"),
        ("timeout", "seconds for which a server may say nothing; default 30"),
        ("overwrite", "true: replace a file of this name"),
        ("allow_private", "true: connect to addresses that are not public, and through a proxy"),
    ],
)


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
    run_app(App("crawl", crawl, HELP, _checked, literal=("url", "category", "filename", "out")))


if __name__ == "__main__":
    main()
