"""Where to listen, and what is bounded. Imports no torch."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import Strict

from slm.schema import FORBID_EXTRA, Count, NonNegativeFloat, PositiveFloat, Text


@dataclass(frozen=True)
class ServeConfig:
    """The settings of `conf/serve.yaml` that are not a model's."""

    __pydantic_config__ = FORBID_EXTRA
    host: Text
    port: Annotated[int, Strict(), Ge(0), Le(65535)]  # 0: any that is free
    api_key: Text | None = field(repr=False)
    max_len: Count
    max_waiting: Count
    max_body_mib: PositiveFloat
    prefixes_mib: NonNegativeFloat
    timeout: PositiveFloat
    grace: NonNegativeFloat

    def __post_init__(self) -> None:
        if self.api_key == "":
            raise ValueError("api_key is empty; give one, or leave it out")
        if not self.is_local and self.api_key is None:
            raise ValueError(
                f"host={self.host} lets other machines in, and there is no key: give api_key=… (or set "
                "SLM_API_KEY), or leave host out"
            )

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can come."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def prefix_bytes(self) -> int:
        return int(self.prefixes_mib * (1 << 20))

    @property
    def max_body(self) -> int:
        """Bytes."""
        return int(self.max_body_mib * (1 << 20))
