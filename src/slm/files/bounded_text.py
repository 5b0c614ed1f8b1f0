"""Text of a file that others may have made: of a known longest size, so that reading it cannot fill the memory."""

from __future__ import annotations

from pathlib import Path

from slm.errors import UserError


def bounded_text(file: Path, most_bytes: int, mend: str = "fetch or make it again") -> str:
    """The text of a regular file.

    Args:
        file: where it lies.
        most_bytes: a longer file is refused unread.
        mend: for the message.

    Raises:
        UserError: it is missing, longer than that, unreadable or not UTF-8.
    """
    try:
        if not file.exists():
            raise UserError(f"{file} is missing")
        if not file.is_file():  # a pipe would wait for ever
            raise UserError(f"{file} is no file; {mend}")
        with file.open("rb") as content:
            raw = content.read(most_bytes + 1)
        if len(raw) > most_bytes:
            raise UserError(f"{file} is longer than {most_bytes >> 10:,} KiB, which is not what it should be; {mend}")
        return raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is damaged ({error}); {mend}") from None
