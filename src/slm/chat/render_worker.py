"""The process of `LimitedRenderer`: first a line with the template and the time that it tells, then a line of names
for each text wanted.

Each is answered by a line, ``{"text": …}`` or ``{"error": …}``. What takes too much time ends the process.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from slm.chat.jinja_chat import compiled
from slm.chat.limited_renderer import MOST_BYTES, MOST_CHARACTERS, MOST_SECONDS

if TYPE_CHECKING:
    import jinja2


def main() -> None:
    """Until there are no more lines."""
    import jinja2  # before the limits: it is ours

    _limit_memory()
    (source, now), template = json.loads(sys.stdin.readline()), None
    make = partial(compiled, source, datetime.fromisoformat(now) if now else None)
    for line in sys.stdin:
        _allow(MOST_SECONDS)
        answer, template = _answer(jinja2, make, template, line)
        _allow(0)
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


def _answer(
    jinja: Any, make: Callable[[], jinja2.Template], template: jinja2.Template | None, line: str
) -> tuple[str, jinja2.Template | None]:
    try:
        template = template or make()
        text = template.render(**json.loads(line))
        if len(text) > MOST_CHARACTERS:
            raise jinja.TemplateError(f"it writes more than {MOST_CHARACTERS:,} characters")
        return json.dumps({"text": text}), template
    except MemoryError:
        return json.dumps({"error": f"it takes more than {MOST_BYTES >> 20} MiB"}), template
    except jinja.TemplateError as error:
        return json.dumps({"error": _line(str(error))}), template
    except Exception as error:  # an operation on the wrong type, a range too long: whatever Python says of it
        return json.dumps({"error": _line(f"{type(error).__name__}: {error}")}), template


def _line(words: str) -> str:
    return " ".join(words.split())[:500]


def _allow(seconds: float) -> None:
    """SIGPROF ends the process after so much time of the processor, whatever it is doing; 0 for no end."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # systems without it
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))


if __name__ == "__main__":
    main()
