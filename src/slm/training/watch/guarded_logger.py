"""A logger that fails does not end a run: it is said, the others log on, and what is lost is counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from pytorch_lightning.loggers.logger import Logger

from slm.notices import notice

T = TypeVar("T")

_REST = 20  # times as long as a failure took is the logger left alone: it costs at most a twentieth of the time


def guarded(logger: Logger, name: str) -> Logger:
    """`logger` itself, whose calls raise no more.

    Each kind of failure is said once. A logger that took long to fail (a server that does not answer) is left alone for
    twenty times as long before it is asked again. At the end it is said how many rows it lacks.

    Args:
        logger: any of Lightning's; it stays an instance of its class, so that callbacks still find it.
        name: as the configuration calls it.
    """
    kind = type(logger)
    logger.__class__ = type(kind.__name__, (_Guarded, kind), {})
    logger._guard = _Guard(name)  # type: ignore[attr-defined]
    return logger


class _Guard:
    """What has gone wrong with one logger."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost_steps: list[int | None] = []
        self._said: set[tuple[str, str]] = set()
        self._ask_again_at = 0.0
        self._inside = False

    def call(self, what: str, function: Callable[[], T], otherwise: T, even_if_resting: bool = False) -> tuple[T, bool]:
        """`function`'s answer and whether it came; `otherwise` and False where it failed or was not asked."""
        if self._inside:  # of the logger's own doing: the outer call is to fail, and says why
            return function(), True
        began = time.monotonic()
        if began < self._ask_again_at and not even_if_resting:
            return otherwise, False
        self._inside = True
        try:
            return function(), True
        except Exception as error:  # a logger may raise anything
            now = time.monotonic()
            self._ask_again_at = now + _REST * (now - began)
            self._say(what, error)
            return otherwise, False
        finally:
            self._inside = False

    def _say(self, what: str, error: Exception) -> None:
        kind = (what, type(error).__name__)
        if kind not in self._said:
            self._said.add(kind)
            reason = " ".join(str(error).split())[:200]
            notice(f"logger {self.name}: {what} failed ({kind[1]}: {reason}); training and the other loggers go on")


class _Guarded(Logger):
    """Overrides what Lightning and callbacks call, before the class of the logger itself."""

    _guard: _Guard

    @property
    def experiment(self) -> Any:
        """Read by Lightning as training begins: most loggers open their files or connections here."""
        if not any("experiment" in vars(kind) for kind in type(self).__mro__[2:]):
            raise AttributeError("experiment")
        return self._guard.call("opening", lambda: super(_Guarded, self).experiment, None)[0]  # type: ignore[misc]

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        call = super().log_metrics  # type: ignore[safe-super]
        done = self._guard.call("log_metrics", lambda: call(metrics, step), None)[1]
        if not done:
            self._guard.lost_steps.append(step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        call = super().log_hyperparams  # type: ignore[safe-super]
        self._guard.call("log_hyperparams", lambda: call(params, *args, **kwargs), None)

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        self._guard.call("log_graph", lambda: super(_Guarded, self).log_graph(model, input_array), None)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        call = super().after_save_checkpoint
        self._guard.call("after_save_checkpoint", lambda: call(checkpoint_callback), None)

    def save(self) -> None:
        self._guard.call("save", super().save, None)

    def finalize(self, status: str) -> None:
        self._guard.call("finalize", lambda: super(_Guarded, self).finalize(status), None, even_if_resting=True)
        if lost := self._guard.lost_steps:
            notice(f"logger {self._guard.name}: it lacks {len(set(lost))} rows, of steps {lost[0]} to {lost[-1]}")
            self._guard.lost_steps = []
