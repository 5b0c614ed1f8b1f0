"""Instruction tuning: learn the responses of conversations (Wei et al. 2021, Ouyang et al. 2022). Imports no torch."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from slm.data.config import CONVERSATIONS, CorpusConfig
from slm.errors import UserError
from slm.registry import MODELS, register_task
from slm.schema import FORBID_EXTRA, Count, Flag, NonNegativeInt, Text
from slm.training.tasks.task import AUTO, Task, TaskData, TaskInputs, TemplateName, said_of_faults

if TYPE_CHECKING:
    from slm.data.batches.datamodule import InstructionDataModule
    from slm.data.batches.read_records import Conversation
    from slm.data.batches.samples import SampleSet
    from slm.models.config import ModelConfig
    from slm.tokenizers.base import Tokenizer

Parts = Mapping[str, Sequence["Conversation"]]


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
    scores: ClassVar[bool] = True
    template: TemplateName = AUTO
    template_file: Text | None = None
    loss_on: Literal["responses", "all"] = "responses"
    too_long: Literal["drop", "keep_start", "keep_end", "refuse"] = "drop"
    packing: Flag = True
    answers: NonNegativeInt = 32
    max_answer_tokens: Count = 128

    def check(self, corpus: CorpusConfig) -> None:
        if corpus.kind != CONVERSATIONS:
            raise UserError(f"task=sft needs conversations (data=instructions data.path=…); data.kind is {corpus.kind}")

    def data(self, inputs: TaskInputs) -> TaskData:
        """Conversations in the template, cut to windows, packed; and the questions of those that validation reads."""
        from slm.data.batches.datamodule import InstructionDataModule
        from slm.data.batches.read_records import read_conversations
        from slm.data.faults import Faults
        from slm.training.answers import Answers, questions_of

        began = time.perf_counter()
        self._check_model(inputs.model)
        faults = Faults(inputs.data.corpus.reading.on_bad)
        parts = read_conversations(inputs.data.corpus, faults, inputs.part)
        tokenizer = self._tokenizer(inputs, parts)
        renderer = inputs.renderer(tokenizer)
        samples = {name: self._samples(part, name, renderer, inputs) for name, part in parts.items()}
        datamodule = InstructionDataModule(samples, tokenizer.fingerprint, self.packing, **inputs.windows)
        asked_of = inputs.part or "val"
        questions = questions_of(
            (parts[asked_of][number] for number in samples[asked_of].kept),
            renderer,
            inputs.model.params.max_seq_len,
            self.answers if inputs.answers is None else inputs.answers,
        )
        callbacks = (Answers(questions, self.max_answer_tokens, inputs.answers_file),) if questions else ()
        said = said_of_faults(faults.lines(), tokenizer, inputs)
        if inputs.part is None:
            report = {**self._counts(samples, datamodule), "faults": faults.as_dict()}
            said = [_said(report, tokenizer, time.perf_counter() - began), *said]
        else:
            counts = {"loss_on": self.loss_on, **samples[inputs.part].report()}
            report = {**counts, "faults": faults.as_dict(), "answered": len(questions)}
        return TaskData(datamodule, tokenizer, "\n".join(said), report, callbacks)

    def _counts(self, samples: Mapping[str, SampleSet], datamodule: InstructionDataModule) -> dict[str, Any]:
        counts: dict[str, Any] = {name: made.report() for name, made in samples.items()}
        if self.packing:
            counts["filled"] = round(datamodule.datasets["train"].filled, 4)
        return counts

    def _samples(self, part: Sequence[Conversation], name: str, renderer: Any, inputs: TaskInputs) -> SampleSet:
        """Raises `UserError` if nothing of the part fits."""
        from slm.data.batches.samples import make_samples

        seq_len = inputs.data.seq_len
        samples = make_samples(part, renderer, seq_len, self.too_long, self.loss_on)
        if not len(samples):
            raise UserError(
                f"data: no conversation of the {name} part fits a window of {seq_len} tokens with "
                "anything to learn in it; raise data.seq_len (and model.params.max_seq_len), or set "
                "task.too_long=keep_end"
            )
        return samples

    def _check_model(self, model: ModelConfig) -> None:
        """Raise `UserError` for a model that cannot take packed rows."""
        if self.packing and "positions" not in inspect.signature(MODELS.get(model.name).hidden_states).parameters:
            raise UserError(
                f"task.packing: the model '{model.name}' takes no positions (hidden_states has no such argument); "
                "set task.packing=false"
            )

    def _tokenizer(self, inputs: TaskInputs, parts: Parts) -> Tokenizer:
        """The weights' or a fitted one, with the template and the tokens that this needs; of a finished model its own,
        as it is."""
        from slm.chat.template import with_template
        from slm.tokenizers.build import build_tokenizer
        from slm.weights.pretrained import check_same_tokens

        if inputs.new_tokenizer is None:
            assert inputs.known is not None
            tokenizer = inputs.known
        else:
            settings = {name: value for name, value in inputs.new_tokenizer.items() if name != "kind"}
            tokenizer = build_tokenizer(inputs.new_tokenizer["kind"], settings, self._texts(parts["train"]))
            if inputs.known is not None:
                check_same_tokens(tokenizer, inputs.known)
        if inputs.part is not None:
            return tokenizer
        own = self.template == AUTO and tokenizer.chat_template is not None
        kind = "hf" if own else "chatml" if self.template == AUTO else self.template
        return with_template(tokenizer, kind, self.template_file)

    def _texts(self, conversations: Sequence[Conversation]) -> Iterator[str]:
        """What a vocabulary is fitted on: the training conversations as the template writes them."""
        from slm.chat.renderer import ChatRenderer
        from slm.chat.template import with_template
        from slm.tokenizers.byte import ByteTokenizer

        kind = "chatml" if self.template == AUTO else self.template
        if kind == "hf" and self.template_file is None:
            raise UserError("task.template=hf without template_file is for a tokenizer that brings a chat template")
        renderer = ChatRenderer(with_template(ByteTokenizer(), kind, self.template_file))
        for conversation in conversations:
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
