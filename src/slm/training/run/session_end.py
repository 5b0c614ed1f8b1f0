"""How a session of a run ended, noted in its record. One that was killed notes nothing, and is told by that."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from slm.errors import Stopped, UserError
from slm.masking import masked
from slm.training.run.folder import RECORD_FILE, TIME, read_record, write_json

End = Literal["done", "stopped", "killed", "failed"]


@contextlib.contextmanager
def noted_end(run: Path) -> Iterator[None]:
    """Note how the block ended in the last session of ``run.json``: ``end`` (`End`; a second Ctrl-C counts as a kill),
    ``ended``, and the ``error`` of one that failed. What cannot be written changes nothing."""
    try:
        yield
    except BaseException as error:
        _note(run, _end_by(error), error)
        raise
    _note(run, "done", None)


def _end_by(error: BaseException) -> End:
    if isinstance(error, Stopped):
        return "stopped"
    return "killed" if isinstance(error, KeyboardInterrupt) else "failed"


def _note(run: Path, end: End, error: BaseException | None) -> None:
    with contextlib.suppress(OSError, UserError):  # a full disk; what ended the session is told all the same
        record = read_record(run)
        session: dict[str, Any] = record["sessions"][-1]
        session |= {"end": end, "ended": time.strftime(TIME)}
        if end == "failed" and error is not None:
            session["error"] = _line(error.__cause__ or error)
        write_json(run / RECORD_FILE, record)


def _line(error: BaseException) -> str:
    told = masked(" ".join(str(error).split()))
    return told if isinstance(error, UserError) else f"{type(error).__name__}: {told}"
