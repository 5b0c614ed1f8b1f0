"""CORE: 22 tasks that tell base models apart early, as one number (Li et al. 2024, DCLM, in nanochat's form of it)."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.evaluation.benchmark_config import BenchmarkConfig
from slm.evaluation.benchmarks.core_prompts import KINDS, options, requests, with_examples
from slm.evaluation.benchmarks.findings import Findings, mean, wilson
from slm.evaluation.json_lines import records_in
from slm.evaluation.reader import Reader
from slm.files.reading import bounded_text, read_yaml_object
from slm.schema import NonNegativeInt, Text, checked_file

_ORDER_SEED, _EXAMPLES_SEED = 1337, 1234  # nanochat's: which items are taken, and which stand ahead of one
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class _Listed:
    """A task as ``core.yaml`` lists it."""

    label: Text
    dataset_uri: Text
    icl_task_type: Text
    num_fewshot: list[NonNegativeInt]
    continuation_delimiter: Text = " "


@dataclass(frozen=True)
class CoreTask:
    """One of the tasks, with its items."""

    label: str
    kind: str
    n_examples: int
    delimiter: str
    chance: float  # the share that guessing gets right
    items: Sequence[Mapping[str, Any]]
    asked: int  # so many of them, the first ones

    def accuracy(self, reader: Reader) -> list[bool]:
        """Whether each is answered rightly: the option with the least loss a token is the right one, or, where there is
        one alone, it is what the model would write."""
        by_item = [self._requests(number, reader) for number in range(self.asked)]
        scores = iter(reader.scores([request for asked in by_item for request in asked]))
        right = []
        for item, asked in zip(self.items, by_item, strict=False):
            found = [next(scores) for _ in asked]
            losses = [-mean(one.logprobs) for one in found]
            alone = self.kind == "language_modeling"
            right.append(found[0].is_greedy if alone else losses.index(min(losses)) == item["gold"])
        return right

    def _requests(self, number: int, reader: Reader) -> Any:
        others = [one for one in range(len(self.items)) if one != number]
        ahead = random.Random(_EXAMPLES_SEED + number).sample(others, self.n_examples) if self.n_examples else []
        asked = options(self.kind, self.items[number], self.delimiter)
        return requests(
            self.kind, with_examples([(self.kind, self.items[i]) for i in ahead], asked, self.delimiter), reader
        )


@dataclass(frozen=True)
class Core:
    """``core`` is the mean over tasks of the accuracy, stretched so that guessing is 0 and all right 1."""

    tasks: Sequence[CoreTask]

    def __call__(self, reader: Reader) -> Findings:
        rows: list[dict[str, Any]] = []
        for task in self.tasks:
            right = task.accuracy(reader)
            accuracy = mean(list(map(float, right)))
            centered = (accuracy - task.chance) / (1 - task.chance)
            interval = list(wilson(sum(right), len(right)))
            rows.append(
                {
                    "task": task.label,
                    "accuracy": accuracy,
                    "centered": centered,
                    "items": len(right),
                    "interval": interval,
                }
            )
        by_task = {f"{row['task']}": row["centered"] for row in rows}
        return Findings({"core": mean(list(by_task.values())), **by_task}, {"by_task": rows}, rows)


def core(config: BenchmarkConfig) -> Core:
    """Of the folder that ``core.path`` names; `UserError` where a file of it is missing or is not as it should be. A
    `limit` is of each task's items, in nanochat's order of them."""
    assert config.core.path is not None
    folder = Path(config.core.path).expanduser()
    if (folder / "eval_bundle" / "core.yaml").is_file():
        folder = folder / "eval_bundle"
    file = folder / "core.yaml"
    if not file.is_file():
        raise UserError(f"core.path: '{folder}' holds no core.yaml; give the unpacked eval_bundle")
    listed = read_yaml_object(file).get("icl_tasks")
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{file} lists no icl_tasks; fetch it again")
    chances = _chances(folder / "eval_meta_data.csv")
    return Core([_task(entry, folder, chances, config) for entry in listed])


def _task(entry: Any, folder: Path, chances: Mapping[str, float], config: BenchmarkConfig) -> CoreTask:
    listed = checked_file(_Listed, entry, folder / "core.yaml", "fetch it again")
    if listed.icl_task_type not in KINDS:
        raise UserError(f"core: '{listed.label}' is of the kind {listed.icl_task_type}; known are {', '.join(KINDS)}")
    file = folder / "eval_data" / listed.dataset_uri
    items = records_in(file)
    for number, item in enumerate(items, start=1):
        if lacking := [name for name in KINDS[listed.icl_task_type] if name not in item]:
            raise UserError(f"record {number} of '{file}' has no '{lacking[0]}', as {listed.icl_task_type} needs")
    random.Random(_ORDER_SEED).shuffle(items)
    n_examples = listed.num_fewshot[0] if listed.num_fewshot else 0
    if n_examples >= len(items):
        raise UserError(f"'{file}' has {len(items)} records, too few for {n_examples} examples ahead of each")
    kind, chance = listed.icl_task_type, chances.get(listed.label, 0.0)
    taken = config.taken(len(items))
    return CoreTask(listed.label, kind, n_examples, listed.continuation_delimiter, chance, items, taken)


def _chances(file: Path) -> dict[str, float]:
    """What guessing gets right of each task, told in percent."""
    text = bounded_text(file, _MOST_BYTES, "fetch the eval_bundle again")
    try:
        return {row["Eval Task"]: float(row["Random baseline"]) / 100 for row in csv.DictReader(text.splitlines())}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} needs the columns Eval Task and Random baseline ({error}); fetch it again") from None
