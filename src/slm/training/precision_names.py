"""The precisions that `trainer.precision` knows. Apart, because checking a name needs no torch."""

from slm.errors import UserError, did_you_mean

SHORT_NAMES = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
PRECISIONS = ("auto", *SHORT_NAMES, "16-mixed", "16-true", "bf16-mixed", "bf16-true", "32-true", "64-true")


def check_precision(name: str | int, where: str) -> None:
    """Raise `UserError` unless `name` is one of `PRECISIONS`; `where` is its key."""
    if str(name) not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise UserError(f"{where}: there is no '{name}'{did_you_mean(str(name), PRECISIONS)} (known: {known})")
