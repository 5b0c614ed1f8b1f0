"""Questions with a known answer, put to a model: its likeliest answer beside the reference, at every validation."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import pytorch_lightning as pl

from slm.chat.records import Message, is_learnt, tools_of
from slm.chat.renderer import ChatRenderer
from slm.files.writing import new_file
from slm.generation.config import GenerationConfig
from slm.generation.language_model import LanguageModel
from slm.models.contract import CausalLM

HowMany = int | Literal["all"]

_SIDE_BY_SIDE = 64


@dataclass(frozen=True)
class Question:
    """A conversation up to a response, the same as the model reads it, and the response."""

    messages: Sequence[Message]
    prompt_ids: Sequence[int]
    reference: str


def questions_of(
    conversations: Iterable[Sequence[Message]], renderer: ChatRenderer, longest: int, wanted: HowMany
) -> list[Question]:
    """The first `wanted` conversations that end with a response, but for that; a prompt that leaves no room for an
    answer, of the `longest` positions that the model has, is passed over."""
    asked: list[Question] = []
    for conversation in conversations:
        *before, last = conversation
        if wanted != "all" and len(asked) >= wanted:
            break
        tools = tools_of(conversation)
        is_asked = before and is_learnt(last) and last.get("content")
        if is_asked and len(ids := renderer.prompt_ids(before, tools)) < longest:
            asked.append(Question(before, ids, renderer.response(conversation, tools)))
    return asked


def answers_to(questions: Sequence[Question], model: LanguageModel, max_new_tokens: int) -> list[dict[str, Any]]:
    """For each question ``prompt``, ``reference``, the model's ``answer``, and whether it is ``exact``.

    The likeliest token is taken each time, so that nothing is drawn. An answer is exact if it is the reference, spaces
    around both left aside.
    """
    settings = GenerationConfig(greedy=True, max_new_tokens=max_new_tokens, batch_size=_SIDE_BY_SIDE)
    lead = ChatRenderer(model.tokenizer).answer_lead
    completions = model.complete_ids([question.prompt_ids for question in questions], settings, lead)
    return [
        {
            "prompt": question.messages[-1]["content"] if len(question.messages) == 1 else list(question.messages),
            "reference": question.reference,
            "answer": completion.text,
            "exact": completion.text.strip() == question.reference.strip(),
        }
        for question, completion in zip(questions, completions, strict=True)
    ]


@dataclass(eq=False)
class Answers(pl.Callback):
    """Asks at each validation, writes `file` anew, if any (a line each, or one array where its name ends in ``.json``),
    and logs ``val/exact_match``, the share of exact answers."""

    questions: Sequence[Question]
    max_new_tokens: int
    file: Path | None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self.questions:
            return
        model = LanguageModel(cast(CausalLM, pl_module.model), pl_module.tokenizer, facts={})  # type: ignore[arg-type]
        answers = answers_to(self.questions, model, self.max_new_tokens)
        if self.file is not None:
            rows = [json.dumps(answer, ensure_ascii=False) for answer in answers]
            text = "[\n" + ",\n".join(rows) + "\n]" if self.file.suffix == ".json" else "\n".join(rows)
            with new_file(self.file) as out:
                out.write(f"{text}\n".encode())
        share = sum(bool(answer["exact"]) for answer in answers) / len(answers)
        pl_module.val_metrics["exact_match"] = share  # type: ignore[operator, index]
        for logger in trainer.loggers:
            logger.log_metrics({"val/exact_match": share}, step=trainer.global_step)
