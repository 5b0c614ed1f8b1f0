"""Instruction tuning: learn the responses of conversations (Wei et al. 2021, Ouyang et al. 2022). Imports no torch."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from slm.data.config import CONVERSATIONS, CorpusConfig
from slm.errors import UserError
from slm.registry import MODELS, register_task
from slm.schema import FORBID_EXTRA, Count, Flag, NonNegativeInt, Text
from slm.training.tasks.task import AUTO, Evaluation, Task, TaskData, TemplateName, said_of_time

if TYPE_CHECKING:
    from slm.chat.renderer import ChatRenderer
    from slm.data.batches.read_records import Conversation, Conversations
    from slm.data.batches.samples import SampleSet
    from slm.models.config import ModelConfig
    from slm.tokenizers.base import Tokenizer
    from slm.training.answers import HowMany, Question
    from slm.training.run_config import RunConfig


@register_task("sft")
@dataclass(frozen=True)
class Sft(Task):
    """Settings of instruction tuning.

    Attributes:
        template: how a conversation is written: a chat template of the registry, or ``auto``: the tokenizer's own where
            it has one, else ``chatml``.
        template_file: for ``hf``: a Jinja file in place of the tokenizer's own template.
        loss_on: learn the ``responses`` alone, or ``all`` tokens.
        too_long: what becomes of a conversation longer than a window: ``drop`` it, keep the tokens at its start or end,
            or ``refuse``. It is counted.
        packing: several conversations share a window, each seeing itself alone; else each has a row of its own.
        answers: questions of the validation part that are answered at each validation, the likeliest token each time,
            and compared with the reference; 0 for none.
        max_answer_tokens: the longest answer.
    """

    __pydantic_config__ = FORBID_EXTRA
    template: TemplateName = AUTO
    template_file: Text | None = None
    loss_on: Literal["responses", "all"] = "responses"
    too_long: Literal["drop", "keep_start", "keep_end", "refuse"] = "drop"
    packing: Flag = True
    answers: NonNegativeInt = 32
    max_answer_tokens: Count = 128

    def check(self, corpus: CorpusConfig) -> None:
        """Conversations alone."""
        if corpus.kind != CONVERSATIONS:
            raise UserError(f"task=sft needs conversations (data=instructions data.path=…); data.kind is {corpus.kind}")

    def data(self, run: RunConfig) -> TaskData:
        """Conversations in the template, cut to windows, packed."""
        from slm.chat.renderer import ChatRenderer
        from slm.data.batches.datamodule import InstructionDataModule
        from slm.data.batches.read_records import read_conversations
        from slm.data.faults import Faults
        from slm.training.watch.answers import ANSWERS_FILE

        began = time.perf_counter()
        self._check_model(run.model)
        faults = Faults(run.data.corpus.reading.on_bad)
        parts = read_conversations(run.data.corpus, faults)
        tokenizer = self._tokenizer(run, parts)
        renderer = ChatRenderer(tokenizer, run.template_time)
        samples = self._samples({"train": parts.train, "val": parts.val}, renderer, run.data.seq_len)
        windows = (run.data.seq_len, run.trainer.windows_at_once, run.data.num_workers, run.seed)
        datamodule = InstructionDataModule(samples, tokenizer.fingerprint, self.packing, *windows)
        report: dict[str, Any] = {name: made.report() for name, made in samples.items()}
        if self.packing:
            report["filled"] = round(datamodule.datasets["train"].filled, 4)
        report["faults"] = faults.as_dict()
        lines = [_said(report, tokenizer, time.perf_counter() - began), *(f"data: {line}" for line in faults.lines())]
        lines += said_of_time(tokenizer, run.template_time)
        asked = self._questions(parts.val, samples["val"], renderer, run.model, self.answers)
        callbacks = self._asking(asked, run.run_dir / ANSWERS_FILE)
        return TaskData(datamodule, tokenizer, "\n".join(lines), report, callbacks)

    def evaluation(self, asked: Evaluation) -> TaskData:
        """The responses of one part of the data; its questions, too."""
        from slm.chat.renderer import ChatRenderer
        from slm.data.batches.datamodule import InstructionDataModule
        from slm.data.batches.read_records import read_part
        from slm.data.faults import Faults
        from slm.training.run.folder import template_time

        self._check_model(asked.model)
        faults = Faults(asked.data.corpus.reading.on_bad)
        conversations = read_part(asked.data.corpus, asked.part, faults)
        renderer = ChatRenderer(asked.tokenizer, template_time(asked.run) if asked.run else None)
        samples = self._samples({asked.part: conversations}, renderer, asked.data.seq_len)
        made = samples[asked.part]
        windows = (asked.data.seq_len, asked.batch_size)
        datamodule = InstructionDataModule(
            samples, asked.tokenizer.fingerprint, self.packing, *windows, eval_split=asked.part
        )
        questions = self._questions(conversations, made, renderer, asked.model, asked.answers)
        return TaskData(
            datamodule,
            asked.tokenizer,
            "\n".join(f"data: {line}" for line in faults.lines()),
            {"loss_on": self.loss_on, **made.report(), "faults": faults.as_dict(), "answered": len(questions)},
            self._asking(questions, asked.answers_file),
        )

    def _samples(
        self, parts: Mapping[str, Sequence[Conversation]], renderer: ChatRenderer, seq_len: int
    ) -> dict[str, SampleSet]:
        """Raises `UserError` for a part of which nothing fits."""
        from slm.data.batches.samples import make_samples

        made = {
            name: make_samples(part, renderer, seq_len, self.too_long, self.loss_on) for name, part in parts.items()
        }
        for name, samples in made.items():
            if not len(samples):
                raise UserError(
                    f"data: no conversation of the {name} part fits a window of {seq_len} tokens with "
                    "anything to learn in it; raise data.seq_len (and model.params.max_seq_len), or set "
                    "task.too_long=keep_end"
                )
        return made

    def _questions(
        self,
        conversations: Sequence[Conversation],
        samples: SampleSet,
        renderer: ChatRenderer,
        model: ModelConfig,
        wanted: HowMany,
    ) -> list[Question]:
        """Of the conversations that samples were made of."""
        from slm.training.answers import questions_of

        kept = (conversations[number] for number in samples.kept)
        return questions_of(kept, renderer, model.params.max_seq_len, wanted)

    def _asking(self, questions: Sequence[Question], file: Path | None) -> tuple[Any, ...]:
        from slm.training.watch.answers import Answers

        return (Answers(questions, self.max_answer_tokens, file),) if questions else ()

    def _check_model(self, model: ModelConfig) -> None:
        """Raise `UserError` for a model that cannot take packed rows."""
        if self.packing and "positions" not in inspect.signature(MODELS.get(model.name).hidden_states).parameters:
            raise UserError(
                f"task.packing: the model '{model.name}' takes no positions (hidden_states has no such argument); "
                "set task.packing=false"
            )

    def _tokenizer(self, run: RunConfig, parts: Conversations) -> Tokenizer:
        """The weights' or a fitted one, with the template and the tokens that this needs."""
        from slm.chat.template import with_template
        from slm.tokenizers.build import build_tokenizer
        from slm.training.run_config import PRETRAINED
        from slm.weights.adapt import check_same_tokens

        if run.start is not None and run.tokenizer["kind"] == PRETRAINED:
            tokenizer = run.start.tokenizer
        else:
            settings = {name: value for name, value in run.tokenizer.items() if name != "kind"}
            tokenizer = build_tokenizer(run.tokenizer["kind"], settings, self._texts(parts))
            if run.start is not None:
                check_same_tokens(tokenizer, run.start.tokenizer)
        own = self.template == AUTO and tokenizer.chat_template is not None
        kind = "hf" if own else "chatml" if self.template == AUTO else self.template
        return with_template(tokenizer, kind, self.template_file)

    def _texts(self, parts: Conversations) -> Iterator[str]:
        """What a vocabulary is fitted on: the training conversations as the template writes them."""
        from slm.chat.renderer import ChatRenderer
        from slm.chat.template import with_template
        from slm.tokenizers.byte import ByteTokenizer

        kind = "chatml" if self.template == AUTO else self.template
        if kind == "hf" and self.template_file is None:
            raise UserError("task.template=hf without template_file is for a tokenizer that brings a chat template")
        renderer = ChatRenderer(with_template(ByteTokenizer(), kind, self.template_file))
        for conversation in parts.train:
            yield from renderer.plain_texts(conversation)


def _said(report: dict[str, Any], tokenizer: Tokenizer, seconds: float) -> str:
    train, val = report["train"], report["val"]
    both = {key: train[key] + val[key] for key in train}
    left_out = [
        f"{both[key]:,} {words}"
        for key, words in (
            ("too_long_dropped", "too long and dropped"),
            ("too_long_cut", "too long and cut"),
            ("nothing_to_learn", "left out with nothing to learn"),
        )
        if both[key]
    ]
    filled = f", {100 * report['filled']:.1f} % of positions filled" if "filled" in report else ""
    learnt = 100 * train["learnt_tokens"] / train["tokens"]
    return (
        f"data {train['samples']:,} training and {val['samples']:,} validation conversations, {train['tokens']:,} "
        f"tokens ({learnt:.0f} % learnt){filled}, vocabulary {tokenizer.vocab_size:,} ({tokenizer.kind})"
        f"{''.join(f'; {words}' for words in left_out)}; ready in {seconds:.1f} s"
    )
