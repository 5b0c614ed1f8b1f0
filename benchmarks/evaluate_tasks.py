"""lm-eval's tasks by `slm-evaluate`'s model and by lm-eval's own `hf` on the export: equal scores, and which is faster.

    python benchmarks/evaluate_tasks.py MODEL [--items 64] [--batch 8] [--repeats 3] [--threads 2] [--dtype float32]

MODEL is whatever `slm.load` takes. Both answer the same requests, in turn, in one process: multiple choice, the
last word of a text, whole pages, texts to write, the same by the chat template where there is one. Tasks and data sets
are made ahead, and models loaded: seconds are those of the requests alone. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from slm.evaluation.harness.language_model import HarnessModel
from slm.evaluation.reader import Reader
from slm.generation.language_model import load
from slm.weights.hugging_face import write_hugging_face
from slm.weights.open_model import find_source, open_source

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from small_tasks import TASKS, write_tasks  # the tasks that the tests ask

KINDS = ("loglikelihood", "loglikelihood_rolling", "generate_until")


class Timed:
    """A model of lm-eval's whose requests are timed."""

    def __init__(self, model: Any) -> None:
        self.model, self.seconds, self.cpu_seconds = model, 0.0, 0.0
        for kind in KINDS:
            setattr(model, kind, self._timed(getattr(model, kind)))

    def _timed(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            start, cpu_start = time.perf_counter(), time.process_time()
            try:
                return answer(*given, **named)
            finally:
                self.seconds += time.perf_counter() - start
                self.cpu_seconds += time.process_time() - cpu_start

        return timed

    def asked(self, task: str, manager: TaskManager) -> tuple[float, float, dict[str, Any]]:
        """Seconds of the task's requests, by the clock and of the processor, and its results."""
        self.seconds = self.cpu_seconds = 0.0
        found = lm_eval.simple_evaluate(
            model=self.model, tasks=[task], task_manager=manager, apply_chat_template=task.endswith("chat")
        )
        figures = {key: value for key, value in found["results"][task].items() if isinstance(value, float)}
        return self.seconds, self.cpu_seconds, figures


def measured(ours: Timed, theirs: Timed, task: str, manager: TaskManager, repeats: int) -> dict[str, Any]:
    """Of one task: medians of seconds, and the largest difference between figures, relative to those above 1."""
    taken: dict[str, list[tuple[float, float]]] = {"slm": [], "hf": []}
    figures: dict[str, dict[str, Any]] = {}
    for _ in range(repeats):
        for name, model in (("slm", ours), ("hf", theirs)):
            seconds, cpu_seconds, figures[name] = model.asked(task, manager)
            taken[name].append((seconds, cpu_seconds))
    medians = {name: statistics.median(one[0] for one in values) for name, values in taken.items()}
    cpu = {f"{name}_cpu": statistics.median(one[1] for one in values) for name, values in taken.items()}
    pairs = [(value, figures["hf"][key]) for key, value in figures["slm"].items() if "stderr" not in key]
    difference = max(abs(one - other) / max(1.0, abs(other)) for one, other in pairs)
    return {**medians, **cpu, "difference": difference}


def main() -> None:
    """Ask both, in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(f"{platform.processor() or platform.machine()}, {asked.threads} threads; torch {torch.__version__}")
    print(f"lm_eval {lm_eval.__version__}, transformers {transformers.__version__}; {vars(asked)}")
    with tempfile.TemporaryDirectory() as temporary:
        export = Path(temporary) / "hf"
        opened = open_source(find_source(asked.model))
        write_hugging_face(export, opened.config, opened.weights(dtype=torch.float32), opened.tokenizer, {})
        dtype = getattr(torch, asked.dtype)
        ours = Timed(HarnessModel(Reader(load(export, "cpu", dtype), asked.batch)))
        theirs = Timed(HFLM(pretrained=str(export), dtype=asked.dtype, device="cpu", batch_size=asked.batch))
        manager = TaskManager(include_path=str(write_tasks(Path(temporary) / "tasks", asked.items)))
        names = [f"slm_{name}" for name in TASKS if name != "chat" or opened.tokenizer.chat_template is not None]
        results = {name: measured(ours, theirs, name, manager, asked.repeats) for name in names}
    for name, one in results.items():
        print(f"{name:<16} {_compared(one)}   differs by {one['difference']:.1e}")
    totals = {key: sum(one[key] for one in results.values()) for key in ("slm", "hf", "slm_cpu", "hf_cpu")}
    print(f"{'all':<16} {_compared(totals)}")
    print(json.dumps({**vars(asked), "tasks": results, **totals, "faster": totals["hf"] / totals["slm"]}))


def _compared(one: dict[str, float]) -> str:
    clock = f"slm {one['slm']:8.2f} s   hf {one['hf']:8.2f} s   {one['hf'] / one['slm']:5.2f} x"
    return f"{clock}   ({one['hf_cpu'] / one['slm_cpu']:.2f} x of the processor's)"


if __name__ == "__main__":
    main()
