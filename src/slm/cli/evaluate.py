"""slm-evaluate: what a model is worth on held-out data, as JSON."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.given_model import model_source, reject_unknown
from slm.cli.result import Result
from slm.errors import UserError

if TYPE_CHECKING:
    from slm.evaluation.benchmark_config import BenchmarkConfig
    from slm.evaluation.config import EvaluationConfig
    from slm.weights.open_model import Source


@dataclass(frozen=True)
class _Asked:
    """A score of data, or, where it names tasks, benchmarks."""

    data: EvaluationConfig
    benchmarks: BenchmarkConfig


def evaluate(values: dict[str, Any], asked: _Asked) -> Result:
    """The command's task."""
    source = model_source(values)
    path = Path(values["run"] or values["model_dir"]).expanduser()
    settings = asked.data
    if asked.benchmarks.tasks:
        from slm.cli.benchmarks import run_benchmarks

        text = partial(_text_of_data, values, settings, source, path)
        return run_benchmarks(settings, asked.benchmarks, source, path, text)
    _ = settings.answers_file  # refuses one that cannot be written, before the model is opened

    from slm.training.lean_lightning import import_lightning

    import_lightning()
    from slm.evaluation.evaluator import evaluate as score
    from slm.weights.open_model import open_source

    data, own_task = _data(values.get("data") or {}, path)
    figures = score(open_source(source), settings, data, own_task, values["task"], path)
    return Result({"model": str(path), **figures}, loss=figures["loss"])


def _text_of_data(values: dict[str, Any], settings: EvaluationConfig, source: Source, path: Path) -> Any:
    """What `in_context` reads, by the task that reads the data."""
    from slm.training.lean_lightning import import_lightning

    import_lightning()
    from slm.evaluation.evaluator import windows_of_data
    from slm.weights.open_model import open_source

    data, own_task = _data(values.get("data") or {}, path)
    return windows_of_data(open_source(source), replace(settings, out=None), data, own_task, path)


def _data(chosen: dict[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What to score on, and the settings of the run's own task."""
    from omegaconf import OmegaConf

    from slm.training.run.folder import CONFIG_FILE, read_config

    of_run = read_config(path) if (path / CONFIG_FILE).is_file() else None
    if "kind" not in chosen:  # not chosen anew: the run's, with what was changed of it
        if of_run is None:
            raise UserError("data is missing: the model does not say what to evaluate on; give data=text data.path=…")
        merged: Any = OmegaConf.to_container(OmegaConf.merge(of_run.get("data") or {}, chosen))
        chosen = merged
    return chosen, of_run and of_run.get("task")


def _checked(values: dict[str, Any]) -> _Asked:
    from slm.cli.benchmarks import check_goes_with_tasks
    from slm.evaluation.benchmark_config import BenchmarkConfig, benchmark_config
    from slm.evaluation.config import EvaluationConfig
    from slm.schema import checked, together
    from slm.training.config import check_precision

    names = [field.name for field in fields(EvaluationConfig)]
    tasks = [field.name for field in fields(BenchmarkConfig)]
    keys = {"run", "checkpoint", "model_dir", "base", "data", "task", "plugins", *names, *tasks}
    config, benchmarks, *_ = together(
        lambda: checked(EvaluationConfig, {name: values[name] for name in names if name in values}),
        lambda: benchmark_config({key: value for key, value in values.items() if key != "batch_size"}),
        lambda: reject_unknown(values, keys),
        lambda: check_precision(values.get("precision", "auto"), "precision"),
    )
    if benchmarks.tasks:
        check_goes_with_tasks(values, benchmarks)
    return _Asked(config, replace(benchmarks, batch_size=config.batch_size))


def _with_the_runs_own(arguments: list[str]) -> list[str]:
    """Keys below what is not chosen here, which Hydra knows none of: they change those of the run."""
    changed = ("task.",) if any(argument.startswith("data=") for argument in arguments) else ("task.", "data.")
    return [f"+{argument}" if argument.startswith(changed) else argument for argument in arguments]


_OF_MODEL = ("run", "model_dir", "base", "out", "reference")
_OF_DATA = ("data.path", "data.val_path", "data.test_path")
_OF_TASKS = (
    "include_path",
    *(f"{task}.path" for task in ("minimal_pairs", "surprisal", "choices", "core", "babylm", "in_context")),
)
_PATHS = (*_OF_MODEL, *_OF_DATA, *_OF_TASKS)
main = entry_point(Command("evaluate", evaluate, _checked, _with_the_runs_own, paths=_PATHS), __name__)
