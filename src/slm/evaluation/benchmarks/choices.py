"""Multiple choice, by how many bits a byte of each choice costs: comparable between tokenizers, and long before a model
chooses well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.evaluation.benchmark_config import BenchmarkConfig, files_at
from slm.evaluation.benchmarks.findings import Findings, mean, wilson
from slm.evaluation.json_lines import records_in, text_of
from slm.evaluation.reader import Reader
from slm.scoring.token_scores import ScoreRequest

_ANSWER = ("answer", "gold", "label")
_QUESTION = ("question", "query", "context")


@dataclass(frozen=True)
class Question:
    """A text that goes on in one of several ways, of which one is right."""

    question: str
    choices: Sequence[str]
    answer: int


@dataclass(frozen=True)
class MultipleChoice:
    """The choice is the one with the fewest bits a byte. ``bits_per_byte`` is that of the right one, which falls
    smoothly as a model learns (Gadre et al. 2024; OLMo's ``bpb``)."""

    questions: Sequence[Question]

    def __call__(self, reader: Reader) -> Findings:
        requests = [
            ScoreRequest(*context_and_continuation(reader, question.question, choice))
            for question in self.questions
            for choice in question.choices
        ]
        scores = iter(reader.scores(requests))
        rows = [self._row(question, [next(scores).total for _ in question.choices]) for question in self.questions]
        right = sum(bool(row["right"]) for row in rows)
        figures = {
            "accuracy": right / len(rows),
            "accuracy_sum": mean([float(row["right_sum"]) for row in rows]),
            "bits_per_byte": mean([row["bits_per_byte"] for row in rows]),
            "questions": len(rows),
        }
        about = {"interval": list(wilson(right, len(rows))), "chance": self._chance}
        return Findings(figures, about, rows)

    @property
    def _chance(self) -> float:
        return mean([1 / len(question.choices) for question in self.questions])

    def _row(self, question: Question, totals: Sequence[float]) -> dict[str, Any]:
        sizes = [len(choice.encode()) for choice in question.choices]
        bits = [-total / math.log(2) / size for total, size in zip(totals, sizes, strict=True)]
        chosen, likeliest = bits.index(min(bits)), totals.index(max(totals))
        return {
            "question": question.question,
            "chosen": question.choices[chosen],
            "answer": question.choices[question.answer],
            "right": chosen == question.answer,
            "right_sum": likeliest == question.answer,
            "bits_per_byte": bits[question.answer],
        }


def context_and_continuation(reader: Reader, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The ids of both written as one text, cut where those of the context alone end; white space at its end is the
    continuation's, whose tokens it is joined to (as lm-eval does it). An empty context is the beginning of a text."""
    bare = context.rstrip()
    if not bare:
        return [reader.spelled.begin_id], reader.spelled.ids(context + continuation)
    whole = reader.spelled.ids(context + continuation, begins=True)
    ahead = len(reader.spelled.ids(bare, begins=True))
    return whole[:ahead], whole[ahead:]


def multiple_choice(config: BenchmarkConfig) -> MultipleChoice:
    """Of files of JSON Lines with ``question``, ``choices`` and ``answer``, the index of the right one from 0 on; a
    choice follows its question after a space unless either has white space there."""
    files = files_at(config.choices.path, (".jsonl", ".json"), "choices.path")
    questions = [
        _question(record, file, number) for file in files for number, record in enumerate(records_in(file), start=1)
    ]
    return MultipleChoice(questions[: config.taken(len(questions))])


def _question(record: dict[str, Any], file: Path, number: int) -> Question:
    where = f"record {number} of '{file}'"
    name = next((name for name in _QUESTION if name in record), _QUESTION[0])
    question, choices = text_of(record, name, file, number), record.get("choices")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise UserError(f"{where} needs 'choices', a list of at least two texts; got {str(choices)[:60]}")
    answer = next((record[name] for name in _ANSWER if name in record), None)
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise UserError(f"{where} needs 'answer', the index of a choice, 0 to {len(choices) - 1}; got {answer!r}")
    return Question(question, [_spaced(question, choice) for choice in choices], answer)


def _spaced(question: str, choice: str) -> str:
    return choice if question[-1].isspace() or choice[0].isspace() else f" {choice}"
