"""A chat template of somebody else's, rendered in a process of its own that has little memory and time.

Jinja's sandbox keeps a template from files and modules, not from ``{% for … %}`` without end or texts of gigabytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from datetime import datetime
from typing import Any

from slm.errors import UserError

MOST_SECONDS = 1  # of the processor, for one conversation
MOST_BYTES = 384 << 20  # of the process
MOST_CHARACTERS = 8 << 20  # of what it writes; longer than any window
_WORKER = "slm.chat.render_worker"


class LimitedRenderer:
    """Renders by one template. The process is started at the first call and ends with this object.

    Args:
        source: Jinja.
        now: as `compiled` takes it.
    """

    def __init__(self, source: str, now: datetime | None = None) -> None:
        self._begin = json.dumps([source, now and now.isoformat()])
        self._process: subprocess.Popen[str] | None = None
        self._pid = 0  # whose child it is: a forked loader worker must not share the pipes
        self._lock = threading.Lock()

    def render(self, **names: Any) -> str:
        """The text.

        Raises:
            UserError: the template is broken, refuses these names, or takes more than a conversation can need.
        """
        with self._lock:
            answer = self._answer(json.dumps(names))
        if "text" not in answer:
            raise UserError(f"the model's chat template refuses this: {answer['error']}")
        text: str = answer["text"]
        return text

    def _answer(self, question: str) -> dict[str, str]:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None  # noqa: PT018
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(question + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line.endswith("\n"):
            _end(process, self._pid)
            self._process = None
            raise UserError(
                f"the model's chat template takes more than {MOST_SECONDS} s or {MOST_BYTES >> 20} MiB for one "
                "conversation; take another (task.template=chatml), or chat=false"
            )
        found: dict[str, str] = json.loads(line)
        return found

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._pid != os.getpid():
            self._process = subprocess.Popen(
                [sys.executable, "-m", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for us
            )
            self._pid = os.getpid()
            weakref.finalize(self, _end, self._process, self._pid)
            assert self._process.stdin is not None
            self._process.stdin.write(self._begin + "\n")
        return self._process


def _end(process: subprocess.Popen[str], pid: int) -> None:
    if pid == os.getpid():
        process.kill()
        with contextlib.suppress(OSError):
            process.communicate()
