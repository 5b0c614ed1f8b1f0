"""What to fetch and where to put it, as `conf/crawl.yaml` says it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le
from pydantic import ByteSize, Strict

from slm.schema import FORBID_EXTRA, Flag, Text, checked


@dataclass(frozen=True)
class CrawlConfig:
    """A remote file and its place: ``out/category/filename``, of at most `max_size` bytes (also "500 MB", "2GB").

    `timeout`, `allow_private` are those of `slm.fetch.http.Access`; `overwrite`: replace a file of this name.
    """

    __pydantic_config__ = FORBID_EXTRA
    url: Text
    category: Literal["sft", "rl", "rag"]
    filename: Text
    out: Text
    max_size: Annotated[ByteSize, Gt(0)]
    timeout: Annotated[float, Strict(), Gt(0), Le(3600)]
    overwrite: Flag
    allow_private: Flag

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CrawlConfig:
        """Checked construction; raises `UserError` with all problems."""
        return checked(cls, values)
