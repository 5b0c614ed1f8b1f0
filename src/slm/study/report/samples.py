"""What a run's model wrote at its last validation."""

from __future__ import annotations

import re
from pathlib import Path

from slm.files.reading import with_replacements
from slm.training.run.folder import SAMPLES_FILE

_LOOKED_AT = 1 << 16  # bytes at the end of the file
_SHOWN = 1500  # characters
_HEAD = re.compile(r"^--- step \d+$", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def last_sample(run: Path) -> str:
    """The last text of ``samples.txt``, without what cannot be shown; "" without one."""
    try:
        with (run / SAMPLES_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LOOKED_AT))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    last = _HEAD.split(text)[-1].strip("\n")
    shown = last if len(last) <= _SHOWN else f"{last[:_SHOWN]} …"
    return _CONTROL.sub("\ufffd", with_replacements(shown))
