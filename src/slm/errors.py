"""The one error a user's mistake raises, and what ends a run that was asked to stop."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake the user can mend: what was got, what is allowed, how to mend it.

    The command line prints its text without a traceback and exits with status 2.
    """


class Stopped(BaseException):
    """A signal asked the run to stop, and it did, with nothing lost; no `Exception`, so that nothing takes it for one.

    The command line prints its text and exits with status 75 (EX_TEMPFAIL of sysexits.h: try again).
    """


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was most likely meant to be, or None if nothing is close."""
    by_lowercase = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), by_lowercase, n=1, cutoff=0.6)
    return by_lowercase[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'X'?"` for the nearest known name, or an empty string."""
    close = nearest(name, known)
    return f"; did you mean '{close}'?" if close else ""
