"""Answers to held-out questions beside their references, at every validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytorch_lightning as pl

from slm.generation.language_model import LanguageModel
from slm.models.contract import CausalLM
from slm.training.answers import Question, answers_to, write_answers

ANSWERS_FILE = "answers.jsonl"


class Answers(pl.Callback):
    """Asks at each validation, writes `file` anew, and logs ``val/exact_match``: the share of exact answers.

    Args:
        questions, max_new_tokens: what to answer, and the longest answer.
        file: where the answers go; None for nowhere.
    """

    def __init__(self, questions: Sequence[Question], max_new_tokens: int, file: Path | None) -> None:
        self.questions = questions
        self.max_new_tokens = max_new_tokens
        self.file = file

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self.questions:
            return
        model = LanguageModel(cast(CausalLM, pl_module.model), pl_module.tokenizer, facts={})  # type: ignore[arg-type]
        answers = answers_to(self.questions, model, self.max_new_tokens)
        if self.file is not None:
            write_answers(answers, self.file)
        share = sum(bool(answer["exact"]) for answer in answers) / len(answers)
        pl_module.val_metrics["exact_match"] = share  # type: ignore[operator, index]
        for logger in trainer.loggers:
            logger.log_metrics({"val/exact_match": share}, step=trainer.global_step)
