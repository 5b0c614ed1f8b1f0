"""What `/metrics` tells Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from slm.serve.served import Served
from slm.serve.shape import Shape

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """Of one server."""

    def __init__(self, models: Sequence[Served], paths: Sequence[str]) -> None:
        self._registry = CollectorRegistry()
        self._paths = frozenset(paths)
        ProcessCollector(registry=self._registry)
        named = {"registry": self._registry}
        self._answers = Counter("slm_answers", "Answers by path and status", ["path", "status"], **named)
        self._read = Counter("slm_prompt_tokens", "Tokens of prompts", ["model"], **named)
        self._written = Counter("slm_new_tokens", "Tokens that were written", ["model"], **named)
        self._first = Histogram(
            "slm_seconds_to_first_token", "From the request on", ["model"], buckets=_SECONDS, **named
        )
        self._whole = Histogram("slm_seconds", "Of a text, from the request on", ["model"], buckets=_SECONDS, **named)
        running = Gauge("slm_running", "Texts that are written", ["model"], **named)
        waiting = Gauge("slm_waiting", "Texts that wait", ["model"], **named)
        for model in models:
            running.labels(model.name).set_function(lambda lane=model.lane: lane.n_running)
            waiting.labels(model.name).set_function(lambda lane=model.lane: lane.n_waiting)

    def answered(self, path: str, status: int) -> None:
        """An answer began; paths that there are not count as one."""
        self._answers.labels(path if path in self._paths else "other", str(status)).inc()

    def wrote(self, shape: Shape) -> None:
        """A request came to its end."""
        model = shape.served.name
        for text in shape.job.texts:
            if (done := text.completion) is not None:
                self._read.labels(model).inc(done.prompt_tokens)
                self._written.labels(model).inc(done.new_tokens)
                self._whole.labels(model).observe(done.seconds)
                if done.new_tokens:
                    self._first.labels(model).observe(done.seconds_to_first_token)

    def text(self) -> bytes:
        """In Prometheus' own form."""
        return generate_latest(self._registry)
