"""slm-crawl: a remote file into the data folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from slm.cli.app import run_app
from slm.cli.help import Help
from slm.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

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
    from omegaconf import OmegaConf

    from slm.cli.sources import reject_unknown
    from slm.data.crawler.config import CrawlConfig
    from slm.data.crawler.crawl import crawl as save
    from slm.notices import notice

    reject_unknown(cfg, CrawlConfig.__dataclass_fields__)
    if missing := [key for key in ("url", "category", "filename") if OmegaConf.is_missing(cfg, key)]:
        raise UserError(f"{', '.join(missing)} must be given: slm-crawl {HELP.usage}")
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    saved = save(CrawlConfig.from_dict(values))
    if saved.unchanged:
        notice(f"{saved.file} held the same already")
    print(json.dumps({"file": str(saved.file), "bytes": saved.size, "sha256": saved.sha256}))


def main() -> None:
    """Entry point."""
    run_app("crawl", crawl, HELP, literal=("url", "category", "filename", "out"))


if __name__ == "__main__":
    main()
