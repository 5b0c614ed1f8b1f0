"""Where what can be made or fetched again is kept."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """``$SLM_CACHE_DIR/NAME``, by default below ``~/.cache/slm``, as `conf/data/*.yaml` have it."""
    return Path(os.environ.get("SLM_CACHE_DIR") or "~/.cache/slm").expanduser() / name
