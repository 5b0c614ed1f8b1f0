"""lm-eval's tasks, asked of our model: which, how, and what came out."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.errors import UserError, did_you_mean
from slm.evaluation.benchmark_config import OWN, BenchmarkConfig
from slm.evaluation.reader import Reader
from slm.extras import require
from slm.files.plain_json import without_nan
from slm.files.writing import new_file

RESULTS_FILE = "lm_eval.json"
_STANDARD_ERROR = "_stderr"


@dataclass(frozen=True)
class Harness:
    """Tasks that were found, each once loaded and used again."""

    tasks: Sequence[str]
    config: BenchmarkConfig
    loaded: Any  # lm-eval's manager, which keeps what it read

    def run(self, reader: Reader) -> dict[str, Any]:
        """lm-eval's own results, samples too. It seeds all generators there are; what these held is put back."""
        import lm_eval

        from slm.evaluation.harness.language_model import HarnessModel
        from slm.training.run.random_state import capture, restore

        settings, before = self.config, capture()
        try:
            with _quiet():
                found = lm_eval.simple_evaluate(
                    model=HarnessModel(reader),
                    tasks=list(self.tasks),
                    num_fewshot=settings.num_fewshot,
                    batch_size=reader.batch_size,
                    limit=settings.limit,
                    log_samples=True,
                    apply_chat_template=settings.apply_chat_template,
                    fewshot_as_multiturn=settings.apply_chat_template,
                    system_instruction=settings.system,
                    gen_kwargs=dict(settings.gen_kwargs) or None,
                    task_manager=self.loaded,
                    confirm_run_unsafe_code=settings.unsafe_code,
                )
        except UserError:
            raise
        except Exception as error:  # of data sets, of a task's own code: theirs are of any kind
            raise UserError(_refusal(self.tasks, error)) from error
        finally:
            restore(before)
        return dict(found)


def harness(config: BenchmarkConfig) -> Harness:
    """lm-eval with the tasks that are named; `UserError` where it is not installed or knows no such task."""
    require("lm_eval", "eval", f"tasks: {', '.join(config.of_harness)} of lm-eval")
    from lm_eval.tasks import TaskManager

    folders = config.include_path
    places = [str(Path(one).expanduser()) for one in ([folders] if isinstance(folders, str) else folders or [])]
    if missing := [place for place in places if not Path(place).is_dir()]:
        raise UserError(f"include_path: there is no folder '{missing[0]}'; give one with the tasks' YAML files")
    with _quiet():
        manager = TaskManager(include_path=places or None)
    known = set(manager.all_tasks)
    for name in config.of_harness:
        if not (manager.match_tasks([name]) or name in known):
            near = did_you_mean(name, [*OWN, *known])
            more = "lm-eval has them all by `lm-eval ls tasks`; include_path=FOLDER adds your own"
            raise UserError(f"tasks: there is no '{name}'{near} (here are {', '.join(OWN)}; {more})")
    return Harness(config.of_harness, config, manager)


def figures_of(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of each task and group the figures and their standard errors, in plain names: ``acc``, ``acc_stderr``, and with
    the filter's name where that is not the only one: ``exact_match/strict-match``."""
    found: dict[str, dict[str, float]] = {}
    for task, own in results["results"].items():
        for key, value in own.items():
            metric, comma, chosen = key.partition(",")
            if comma and isinstance(value, int | float):
                name = metric if chosen == "none" else f"{metric}/{chosen}"
                found.setdefault(task, {})[name] = float(value)
    return found


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """lm-eval's JSON as it writes it (``lm_eval.json``), and the samples of each task (``samples_TASK.jsonl``)."""
    from lm_eval.utils import handle_non_serializable

    whole = {key: value for key, value in results.items() if key != "samples"}
    with new_file(folder / RESULTS_FILE) as out:
        plain = json.loads(json.dumps(whole, default=handle_non_serializable))
        out.write(json.dumps(without_nan(plain), indent=2, ensure_ascii=False).encode())
    for task, samples in results.get("samples", {}).items():
        lines = (json.dumps(sample, default=handle_non_serializable, ensure_ascii=False) for sample in samples)
        with new_file(folder / f"samples_{task.replace('/', '_')}.jsonl") as out:
            out.write("".join(f"{line}\n" for line in lines).encode())


def _refusal(tasks: Sequence[str], error: Exception) -> str:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    offline = {name: os.environ[name] for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE") if name in os.environ}
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    where = f" ({', '.join(offline)} is set)" if offline else ""
    return (
        f"tasks: lm-eval could not run {', '.join(tasks)}: {reason}. Data sets are looked for in HF_HOME ({home})"
        f"{where} and on the hub; a task of your own reads local files (include_path=FOLDER)"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Of its log errors alone, and no bars of data sets that take a moment."""
    import datasets

    logger = logging.getLogger("lm_eval")
    level, bars = logger.level, datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
