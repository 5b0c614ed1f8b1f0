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
from slm.schema import Count, Flag, NonNegativeInt
from slm.training.tasks.task import ChatTask, TaskData, TaskInputs, said_of_faults

if TYPE_CHECKING:
    from slm.chat.records import Conversation
    from slm.models.config import ModelConfig
    from slm.tokenizers.base import Tokenizer


@register_task("sft")
@dataclass(frozen=True)
class Sft(ChatTask):
    """Settings of instruction tuning."""

    scores: ClassVar[bool] = True
    default_template: ClassVar[str] = "chatml"
    loss_on: Literal["responses", "all"] = "responses"
    # what becomes of a conversation longer than a window, which is counted: its start or end may stay
    too_long: Literal["drop", "keep_start", "keep_end", "refuse"] = "drop"
    packing: Flag = True  # several conversations share a window, each seeing itself alone; else each has its own row
    # questions answered at each validation, the likeliest token each time, and compared with the reference
    answers: NonNegativeInt = 32
    max_answer_tokens: Count = 128

    def check(self, corpus: CorpusConfig) -> None:
        if corpus.kind != CONVERSATIONS:
            raise UserError(f"task=sft needs conversations (data=instructions data.path=…); data.kind is {corpus.kind}")

    def data(self, inputs: TaskInputs) -> TaskData:
        """Conversations in the template, cut to windows, packed; and the questions of those that validation reads."""
        from slm.chat.renderer import ChatRenderer
        from slm.data.batches.datamodule import InstructionDataModule
        from slm.data.batches.learnt import learnt_told, unread_told
        from slm.data.batches.read_records import read_conversations
        from slm.data.batches.samples import make_samples
        from slm.data.faults import Faults
        from slm.training.answers import Answers, questions_of

        began = time.perf_counter()
        self._check_model(inputs.model)
        part, corpus, seq_len = inputs.part, inputs.data.corpus, inputs.data.seq_len
        faults = Faults(corpus.reading.on_bad)
        assert part != "test"  # of text alone
        parts = read_conversations(corpus, faults, part)
        self._check_weights(parts)
        tokenizer = self._tokenizer(inputs, parts)
        renderer = ChatRenderer(tokenizer, inputs.template_time, self.template_args)
        samples = {
            name: make_samples(found, renderer, seq_len, self.too_long, self.loss_on) for name, found in parts.items()
        }
        if empty := next((name for name, made in samples.items() if not len(made)), None):
            raise UserError(
                f"data: no conversation of the {empty} part fits a window of {seq_len} tokens with anything to learn "
                "in it; raise data.seq_len (and model.params.max_seq_len), or set task.too_long=keep_end"
            )
        datamodule = InstructionDataModule(samples, tokenizer.fingerprint, self.packing, **inputs.windows)
        asked_of = part or "val"
        questions = questions_of(
            (parts[asked_of][number] for number in dict.fromkeys(samples[asked_of].kept)),
            renderer,
            inputs.model.params.max_seq_len,
            self.answers if inputs.answers is None else inputs.answers,
        )
        callbacks = (Answers(questions, self.max_answer_tokens, inputs.answers_file),) if questions else ()
        said = said_of_faults(faults, tokenizer, inputs)
        if part is None:
            report: dict[str, Any] = {name: made.report() for name, made in samples.items()}
            if self.packing:
                report["filled"] = round(datamodule.datasets["train"].filled, 4)
            learnt = learnt_told(samples["train"], tokenizer, renderer.end_ids, self.loss_on)
            unread = unread_told((talk for found in parts.values() for talk in found), tokenizer.chat_template or "")
            said = [_said(report, tokenizer, time.perf_counter() - began), learnt, *said, *unread]
        else:
            report = {"loss_on": self.loss_on, **samples[part].report(), "answered": len(questions)}
        return TaskData(datamodule, tokenizer, "\n".join(said), {**report, "faults": faults.as_dict()}, callbacks)

    def _check_model(self, model: ModelConfig) -> None:
        """Raise `UserError` for a model that cannot take packed rows."""
        if self.packing and "positions" not in inspect.signature(MODELS.get(model.name).hidden_states).parameters:
            raise UserError(
                f"task.packing: the model '{model.name}' takes no positions (hidden_states has no such argument); "
                "set task.packing=false"
            )

    def _check_weights(self, parts: Mapping[str, Sequence[Conversation]]) -> None:
        """Raise `UserError` if all is to be learnt, and a message says that it is not."""
        messages = (message for part in parts.values() for talk in part for message in talk)
        if self.loss_on == "all" and any(one["role"] == "assistant" and one.get("weight") == 0 for one in messages):
            raise UserError(
                "task.loss_on=all learns every token, and there are answers of weight 0; leave it at responses"
            )

    def _tokenizer(self, inputs: TaskInputs, parts: Mapping[str, Sequence[Conversation]]) -> Tokenizer:
        """The weights' or a fitted one, in the template; of a finished model its own, as it is."""
        from slm.tokenizers.build import build_tokenizer
        from slm.weights.pretrained import check_same_tokens

        if inputs.new_tokenizer is None:
            assert inputs.known is not None
            tokenizer = inputs.known
        else:
            tokenizer = build_tokenizer(inputs.new_tokenizer, self._texts(parts["train"]))
            if inputs.known is not None:
                check_same_tokens(tokenizer, inputs.known)
        return tokenizer if inputs.part else self.in_template(tokenizer)

    def _texts(self, conversations: Sequence[Conversation]) -> Iterator[str]:
        """What a vocabulary is fitted on: the training conversations as the template writes them."""
        from slm.chat.renderer import ChatRenderer
        from slm.tokenizers.byte import ByteTokenizer

        if self.template == "hf" and self.template_file is None:
            raise UserError("task.template=hf without template_file is for a tokenizer that brings a chat template")
        renderer = ChatRenderer(self.in_template(ByteTokenizer()))
        for conversation in conversations:
            yield from renderer.plain_texts(conversation, conversation.tools)


def _said(report: dict[str, Any], tokenizer: Tokenizer, seconds: float) -> str:
    train, val = report["train"], report["val"]
    left_out = {
        "too long and dropped": train["too_long_dropped"] + val["too_long_dropped"],
        "too long and cut": train["too_long_cut"] + val["too_long_cut"],
        "left out with nothing to learn": train["nothing_to_learn"] + val["nothing_to_learn"],
    }
    filled = f", {100 * report['filled']:.1f} % of positions filled" if "filled" in report else ""
    learnt = 100 * train["learnt_tokens"] / train["tokens"]
    return (
        f"data {train['conversations']:,} training and {val['conversations']:,} validation conversations"
        f"{_said_of_turns(train, val)}, {train['tokens']:,} tokens ({learnt:.0f} % learnt){filled}, "
        f"vocabulary {tokenizer.vocab_size:,} ({tokenizer.kind})"
        f"{''.join(f'; {number:,} {words}' for words, number in left_out.items() if number)}; ready in {seconds:.1f} s"
    )


def _said_of_turns(*parts: Mapping[str, Any]) -> str:
    conversations, samples = (sum(part[name] for part in parts) for name in ("conversations", "samples"))
    if samples == conversations:
        return ""
    why = "the template rewrites what was said, so that answers are learnt behind what is read as they are given"
    return f" in {samples:,} samples ({why})"
