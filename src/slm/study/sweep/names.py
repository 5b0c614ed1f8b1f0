"""What a trial's run folder is called: by what varies, ``lr=0.001,seed=2``."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence

ALONE = "run"  # of a sweep in which nothing varies
_LONGEST = 120  # characters; file systems take 255 bytes, and paths of Windows 260 in all
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=,\-\[\]]")


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Of each key its last part, or all of it where another ends alike."""
    last = {key: re.split(r"[./@]", key.lstrip("+"))[-1] for key in keys}
    count = Counter(last.values())
    return {key: name if count[name] == 1 else key.lstrip("+") for key, name in last.items()}


def folder_name(values: Mapping[str, str]) -> str:
    """A name of `values` alone, safe on any file system; what has to be changed or cut for that is told apart by a
    digest of the whole."""
    short = short_keys(list(values))
    whole = ",".join(f"{short[key]}={value}" for key, value in values.items()) or ALONE
    safe = _UNSAFE.sub("_", whole)
    if safe == whole and len(safe) <= _LONGEST:
        return safe
    return f"{safe[: _LONGEST - 9]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
