"""What is said to the person at the terminal: on stderr, so that stdout holds results only."""

import functools
import os
import sys


def notice(text: str) -> None:
    """Print a line to stderr, on the first rank only."""
    if os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


@functools.cache
def notice_once(text: str) -> None:
    """The same for what may be found several times in a process."""
    notice(text)
