"""slm-evaluate tasks=[…]: benchmarks in place of data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.cli.result import Result
from slm.errors import UserError, refuse
from slm.notices import in_columns, notice

if TYPE_CHECKING:
    from slm.evaluation.benchmark_config import BenchmarkConfig
    from slm.evaluation.benchmarks.findings import Findings
    from slm.evaluation.benchmarks.in_context import Windows
    from slm.evaluation.config import EvaluationConfig
    from slm.weights.open_model import Source

EVALUATIONS = "evaluations"  # of a run folder: a folder each time
_DTYPES = {"32": "float32", "32-true": "float32", "bf16": "bfloat16", "bf16-true": "bfloat16", "64": "float64"}
_OF_DATA = {"split": "val", "answers": 0, "reference": None, "eos_token": None}  # with their defaults


def check_goes_with_tasks(values: Mapping[str, Any], config: BenchmarkConfig) -> None:
    """Raise `UserError` for settings of data where tasks are named."""
    reads = "in_context" in config.tasks and config.in_context.path is None
    allowed = {"split"} if reads else set()
    changed = [name for name, default in _OF_DATA.items() if values.get(name) != default and name not in allowed]
    changed += ["task"] if values.get("task") else []
    changed += ["data"] if values.get("data") and not reads else []
    refuse(f"{name} is of what is read without tasks; leave it out, or tasks" for name in changed)
    if str(values.get("precision", 32)) not in _DTYPES:
        raise UserError(f"precision: tasks are read in {', '.join(_DTYPES)}; got {values['precision']}")


def run_benchmarks(
    settings: EvaluationConfig,
    config: BenchmarkConfig,
    source: Source,
    path: Path,
    text: Any,  # gives what in_context reads, where that is asked for: `Windows`, and how long they are
) -> Result:
    """The command's task where it names some."""
    import torch

    from slm.training.lean_lightning import import_lightning

    import_lightning()  # lm-eval's generators are put back by what a run has for its own
    from slm.evaluation.reader import Reader
    from slm.evaluation.suite import suite
    from slm.generation.language_model import load

    folder = _folder(settings.out, path)
    reads_data = "in_context" in config.tasks and config.in_context.path is None
    given: tuple[Windows, int] | None = text() if reads_data else None
    chosen = suite(config, given)
    dtype = getattr(torch, _DTYPES[str(settings.precision)])
    reader = Reader(load(source, dtype=dtype, quantize=settings.quantize), config.batch_size)
    start, results = time.perf_counter(), None
    found: dict[str, Findings] = {}
    for name, findings, whole in chosen.run(reader):
        found[name], results = findings, whole or results
    content: dict[str, Any] = {
        "model": str(path),
        "tasks": {name: {**one.figures, **one.about} for name, one in found.items()},
        "limit": config.limit if config.limit is None or config.limit < 1 else int(config.limit),
        "seconds": round(time.perf_counter() - start, 3),
        "out": None if folder is None else str(folder),
    }
    if folder is not None:
        _write(folder, content, found, results)
    return Result(content, words=_table(found))


def _folder(out: str | None, path: Path) -> Path | None:
    """Where results are written: `out`, else a folder of the run's; nowhere for a model that is no run's."""
    if out is not None:
        folder = Path(out).expanduser()
        if folder.exists():
            raise UserError(f"out: '{folder}' is there already and is left as it is; name a new folder")
        return folder
    if not (path / "run.json").is_file():
        return None
    return path / EVALUATIONS / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")


def _write(folder: Path, content: Mapping[str, Any], found: Mapping[str, Findings], results: Any) -> None:
    from slm.evaluation.harness.harness import write_results
    from slm.files.csv_table import write_rows
    from slm.files.plain_json import without_nan
    from slm.training.run.folder import write_json

    try:
        folder.mkdir(parents=True)
        write_json(folder / "results.json", without_nan(content))
        for name, one in found.items():
            if one.rows:
                write_rows(folder / f"{name}.csv", one.rows)
            for place, json_content in one.files.items():
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                write_json(folder / place, json_content)
        if results is not None:
            write_results(folder, results)
    except OSError as error:
        raise UserError(f"out: cannot write '{folder}' ({error.strerror}); make room or name another place") from error
    notice(f"results are in '{folder}'")


def _table(found: Mapping[str, Findings]) -> str:
    rows = [[name, figure, f"{value:.4f}"] for name, one in found.items() for figure, value in one.figures.items()]
    return "\n".join(in_columns([["task", "figure", "value"], *rows], (str.ljust, str.ljust, str.rjust)))
