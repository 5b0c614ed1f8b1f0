"""The one error a user's mistake raises, and what ends a run that was asked to stop."""

from collections.abc import Iterable, Sequence

from slm.suggest.nearest import ranked


class UserError(ValueError):
    """A mistake the user can mend: what was got, what is allowed, how to mend it; a command ends with status 2."""


class Stopped(BaseException):
    """A signal asked the run to stop, and it did, with nothing lost; a command ends with status 75, and tells programs
    the `facts`. It is no `Exception`, so that nothing takes it for one."""

    def __init__(self, message: str, **facts: str) -> None:
        super().__init__(message)
        self.facts = facts


def refuse(problems: Iterable[str]) -> None:
    """Raise one `UserError` with a line for each problem, if there are any."""
    if lines := "\n".join(problems):
        raise UserError(lines)


def first_few(found: Sequence[str], separator: str = ", ", most: int = 4) -> str:
    """Of several things the first, and how many more there are: ``"a, b, and 3 more"``."""
    more = [f"and {len(found) - most:,} more"] if len(found) > most else []
    return separator.join([*found[:most], *more])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'X'?"` for the nearest known name, or an empty string."""
    return suggestion(ranked(name, known)[:1])


def suggestion(names: Sequence[str]) -> str:
    """`"; did you mean 'X'?"`, of two names with `" (or 'Y')"` behind it; an empty string for none."""
    if not names:
        return ""
    return f"; did you mean '{names[0]}'?" + (f" (or '{names[1]}')" if len(names) > 1 else "")
