"""Answers to held-out questions beside their references, at every validation."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl

from slm.data.templates.renderer import Message
from slm.generation.config import GenerationConfig
from slm.generation.language_model import LanguageModel
from slm.models.contract import CausalLM

ANSWERS_FILE = "answers.jsonl"


@dataclass(frozen=True)
class Question:
    """Attributes:
    messages: a conversation up to a response.
    prompt_ids: the same as the model reads it.
    reference: the response.
    """

    messages: Sequence[Message]
    prompt_ids: Sequence[int]
    reference: str


class Answers(pl.Callback):
    """Writes ``answers.jsonl`` into the run folder, anew at each validation, and logs ``val/exact_match``.

    The likeliest token is taken each time, so that nothing is drawn. An answer is exact if it is the reference, spaces
    around both left aside.

    Args:
        questions: what to answer.
        max_new_tokens: the longest answer.
    """

    def __init__(self, questions: Sequence[Question], max_new_tokens: int) -> None:
        self.questions = questions
        self.settings = GenerationConfig(greedy=True, max_new_tokens=max_new_tokens, batch_size=64)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Answer, compare, write, log."""
        if not trainer.is_global_zero or not self.questions:
            return
        model = LanguageModel(cast(CausalLM, pl_module.model), pl_module.tokenizer, facts={})  # type: ignore[arg-type]
        completions = model.complete_ids([question.prompt_ids for question in self.questions], self.settings)
        answers = [
            {
                "prompt": question.messages[-1]["content"] if len(question.messages) == 1 else list(question.messages),
                "reference": question.reference,
                "answer": completion.text,
                "exact": completion.text.strip() == question.reference.strip(),
            }
            for question, completion in zip(self.questions, completions, strict=True)
        ]
        _write(Path(trainer.default_root_dir) / ANSWERS_FILE, answers)
        share = sum(bool(answer["exact"]) for answer in answers) / len(answers)
        pl_module.val_metrics["exact_match"] = share  # type: ignore[operator, index]
        for logger in trainer.loggers:
            logger.log_metrics({"val/exact_match": share}, step=trainer.global_step)


def _write(file: Path, answers: Sequence[dict[str, Any]]) -> None:
    partial = file.with_name(f".{file.name}.partial")
    lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    partial.write_text(lines, encoding="utf-8")
    os.replace(partial, file)
