"""The benchmarks that were chosen, made ready and run one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slm.evaluation.babylm.challenge import challenge
from slm.evaluation.benchmark_config import BenchmarkConfig
from slm.evaluation.benchmarks.choices import multiple_choice
from slm.evaluation.benchmarks.core import core
from slm.evaluation.benchmarks.findings import Benchmark, Findings
from slm.evaluation.benchmarks.in_context import Windows, in_context
from slm.evaluation.benchmarks.induction import induction
from slm.evaluation.benchmarks.minimal_pairs import minimal_pairs
from slm.evaluation.benchmarks.surprisal import word_surprisal
from slm.evaluation.harness.harness import Harness, figures_of, harness
from slm.evaluation.reader import Reader

_MADE: dict[str, Callable[[BenchmarkConfig], Benchmark]] = {
    "minimal_pairs": minimal_pairs,
    "surprisal": word_surprisal,
    "choices": multiple_choice,
    "core": core,
    "induction": induction,
    "babylm": challenge,
}


@dataclass(frozen=True)
class Suite:
    """All tasks of a configuration, with the data that they read."""

    own: Mapping[str, Benchmark]
    harness: Harness | None

    def run(self, reader: Reader) -> Iterator[tuple[str, Findings, Mapping[str, Any] | None]]:
        """Each task's name and findings, as they come, and beside those of lm-eval all that it says of them."""
        for name, benchmark in self.own.items():
            yield name, benchmark(reader), None
        if self.harness is not None:
            results = self.harness.run(reader)
            for name, figures in figures_of(results).items():
                yield name, Findings(figures), results


def suite(config: BenchmarkConfig, text: tuple[Windows, int] | None = None) -> Suite:
    """Read what the tasks of `config` need; `text` is what ``in_context`` reads where its settings name no file, and
    how long its windows are. `UserError` where a file or a task is not there, or lm-eval not installed."""
    own: dict[str, Benchmark] = {}
    for name in config.own:
        own[name] = in_context(config, text) if name == "in_context" else _MADE[name](config)
    return Suite(own, harness(config) if config.of_harness else None)
