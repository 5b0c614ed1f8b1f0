"""A logger that fails does not end a run: it is said, the others log on, and what is lost is counted."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from pytorch_lightning.loggers.logger import Logger

from slm.notices import notice

_REST = 20  # times as long as a failure took is the logger left alone: it costs at most a twentieth of the time
_CALLS = ("log_hyperparams", "log_graph", "after_save_checkpoint", "save")  # by Lightning and callbacks


def guarded(logger: Logger, name: str) -> Logger:
    """`logger` itself, whose calls raise no more.

    Each kind of failure is said once. A logger that took long to fail (a server that does not answer) is left alone for
    twenty times as long before it is asked again. At the end it is said how many rows it lacks.

    Args:
        logger: any of Lightning's; it stays an instance of its class, so that callbacks still find it.
        name: as the configuration calls it.
    """
    kind, guard = type(logger), _Guard(name)

    def log_metrics(self: Logger, metrics: dict[str, float], step: int | None = None) -> None:
        if not guard.call("log_metrics", kind.log_metrics, self, metrics, step)[1]:
            guard.lost_steps.append(step)

    def finalize(self: Logger, status: str) -> None:
        guard.ask_again_at = 0.0
        guard.call("finalize", kind.finalize, self, status)
        guard.say_what_is_lost()

    calls: dict[str, Any] = {what: guard.around(what, getattr(kind, what)) for what in _CALLS}
    if hasattr(kind, "experiment"):  # read by Lightning as training begins: most open their files or connections here
        calls["experiment"] = property(lambda self: guard.call("opening", kind.experiment.__get__, self)[0])
    logger.__class__ = type(kind.__name__, (kind,), {**calls, "log_metrics": log_metrics, "finalize": finalize})
    return logger


class _Guard:
    """What has gone wrong with one logger."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost_steps: list[int | None] = []
        self.ask_again_at = 0.0
        self._said: set[tuple[str, str]] = set()
        self._inside = False

    def around(self, what: str, method: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(method)(lambda *args, **kwargs: self.call(what, method, *args, **kwargs)[0])

    def call(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, bool]:
        """Its answer and whether it came; None and False where it failed or was not asked."""
        if self._inside:  # of the logger's own doing: the outer call is to fail, and says why
            return function(*args, **kwargs), True
        began = time.monotonic()
        if began < self.ask_again_at:
            return None, False
        self._inside = True
        try:
            return function(*args, **kwargs), True
        except Exception as error:  # a logger may raise anything
            now = time.monotonic()
            self.ask_again_at = now + _REST * (now - began)
            self._say(what, error)
            return None, False
        finally:
            self._inside = False

    def say_what_is_lost(self) -> None:
        if lost := self.lost_steps:
            notice(f"logger {self.name}: it lacks {len(set(lost))} rows, of steps {lost[0]} to {lost[-1]}")
            self.lost_steps = []

    def _say(self, what: str, error: Exception) -> None:
        kind = (what, type(error).__name__)
        if kind not in self._said:
            self._said.add(kind)
            reason = " ".join(str(error).split())[:200]
            notice(f"logger {self.name}: {what} failed ({kind[1]}: {reason}); training and the other loggers go on")
