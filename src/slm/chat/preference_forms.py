"""Records of any data set's form to preferences: two answers to one prompt, or one answer that is good or bad."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from slm.chat.conversation_forms import ANSWERS, PROMPTS, Roles, answer_in, asked, with_system
from slm.chat.records import Fields, Message, RecordError, Tools, check_characters, messages_in, tools_in
from slm.chat.transcripts import is_transcript, turns
from slm.tokenizers.stream import common_prefix

PairColumn = Literal["prompt", "chosen", "rejected", "system", "context", "history", "tools"]
LabelledColumn = Literal["prompt", "completion", "label", "messages", "system", "context", "history", "tools"]
"""What ``data.columns`` may name of a pair, and of an answer with a label."""

_PROMPTS = ("instruction", *PROMPTS)
_WORDS_ALIKE = re.compile(r".*\S(?=\s)", re.DOTALL)


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, the better and the worse."""

    prompt: tuple[Message, ...]  # the conversation up to the answers; its last message is not the assistant's
    chosen: str
    rejected: str
    tools: Tools = None


@dataclass(frozen=True)
class LabelledAnswer:
    """An answer to a prompt, and whether it is wanted."""

    prompt: tuple[Message, ...]  # as of a `Pair`
    answer: str
    is_desirable: bool
    tools: Tools = None


class ReadPair(NamedTuple):
    """A pair, and the form in which it was found, for people."""

    pair: Pair
    form: str


class ReadAnswers(NamedTuple):
    """The answers of a record, and the form in which they were found, for people."""

    answers: list[LabelledAnswer]
    form: str


def pair_of(fields: Fields, roles: Roles | None = None) -> ReadPair:
    """The pair that a record holds: ``chosen`` and ``rejected``, each a text or messages, and a prompt as of
    `asked` or what both begin with; OpenAI's ``preferred_output``; SHP's ``human_ref_A``. `RecordError` if fields are
    missing, of another form, without text, or hold half a character."""
    roles = roles or {}
    if "preferred_output" in fields:
        found = _openai(fields, roles)
    elif "human_ref_A" in fields:
        found = _shp(fields)
    else:
        found = _chosen_and_rejected(fields, roles)
    pair = found.pair if found.pair.tools else replace(found.pair, tools=tools_in(fields))
    _check(pair.prompt, chosen=pair.chosen, rejected=pair.rejected)
    return ReadPair(pair, found.form)


def labelled_of(fields: Fields, roles: Roles | None = None) -> ReadAnswers:
    """The answers of a record: a prompt as of `asked`, ``completion`` and ``label``; a conversation and the ``label``
    of its last message; or the two of a pair. `RecordError` as of `pair_of`."""
    roles = roles or {}
    if "label" not in fields and "chosen" in fields:
        pair, form = pair_of(fields, roles)
        both = ((pair.chosen, True), (pair.rejected, False))
        answers = [LabelledAnswer(pair.prompt, text, is_desirable, pair.tools) for text, is_desirable in both]
        return ReadAnswers(answers, f"{form}, an answer each")
    if (label := fields.get("label")) not in (True, False):
        found = f"has {label!r} for a label" if "label" in fields else "has no field 'label'"
        raise RecordError(f"{found}, not true or false {fields}{_mend(fields, 'completion', 'label')}")
    if whole := fields.first("messages", "conversations"):
        before, answer = _last_answer(messages_in(fields[whole], whole, roles), whole)
        before, found_in = with_system(fields, before), [whole]
    else:
        before, found_in = asked(fields, _PROMPTS, roles)
        if (name := fields.first(*ANSWERS)) is None:
            raise RecordError(f"has no field 'completion' {fields}{_mend(fields, 'completion', 'label')}")
        ahead, answer = _last_answer(answer_in(fields, name, roles), name)
        before, found_in = [*before, *ahead], [*found_in, name]
    _check(before, answer=answer)
    tools = tools_in(fields)
    labelled = LabelledAnswer(tuple(before), answer, bool(label), tools)
    return ReadAnswers([labelled], fields.path(*found_in, "label"))


def _check(prompt: Any, **answers: str) -> None:
    if empty := next((name for name, text in answers.items() if not text), None):
        raise RecordError(f"has an empty answer in '{empty}'")
    if not prompt or prompt[-1]["role"] == "assistant":
        raise RecordError("has a prompt that ends with the assistant's words")
    check_characters([*prompt, answers])


def _chosen_and_rejected(fields: Fields, roles: Roles) -> ReadPair:
    for name in ("chosen", "rejected"):
        if name not in fields:
            raise RecordError(f"has no field '{name}' {fields}{_mend(fields, 'chosen', 'rejected')}")
    (before, chosen), (other, rejected) = (_answer(fields, name, roles) for name in ("chosen", "rejected"))
    if before != other:
        raise RecordError("has answers in 'chosen' and 'rejected' whose conversations differ before their last message")
    found_in = ["chosen", "rejected"]
    spelt = " as transcripts" if is_transcript(fields.peek("chosen")) else ""
    if fields.first(*_PROMPTS):
        prompt, of_prompt = asked(fields, _PROMPTS, roles)
        before = _the_same(prompt, with_system(fields, before)) if before else prompt
        found_in = [*of_prompt, *found_in]
    elif before:
        spelt += ", prompt: their common messages"
    else:
        words, chosen, rejected = _common_words(chosen, rejected)
        if not words:
            why = "'chosen' and 'rejected' are no whole conversations, and begin with other words"
            raise RecordError(f"has no field 'prompt', {why} {fields}{_mend(fields, 'chosen', 'rejected')}")
        before, spelt = [{"role": "user", "content": words}], ", prompt: their common words"
    pair = Pair(tuple(with_system(fields, before)), chosen, rejected)
    return ReadPair(pair, f"{fields.path(*found_in)}{spelt}")


def _the_same(prompt: list[Message], before: list[Message]) -> list[Message]:
    """A prompt that stands in the answers' conversations, too (UltraFeedback): as it is there."""
    own = [message for message in prompt if message["role"] != "system"]
    if own != [one for one in before if one["role"] != "system"] and (
        len(own) > 1 or own[0]["content"] not in [one["content"] for one in before if one["role"] == "user"]
    ):
        raise RecordError("has a 'prompt' that is none of the questions in 'chosen' and 'rejected'")
    return before


def _common_words(chosen: str, rejected: str) -> tuple[str, str, str]:
    """What two texts begin with, up to the end of a word, and what follows in each."""
    alike = _WORDS_ALIKE.match(common_prefix(chosen, rejected))
    end = alike.end() if alike else 0
    return chosen[:end], chosen[end:], rejected[end:]


def _answer(fields: Fields, name: str, roles: Roles) -> tuple[list[Message], str]:
    """Messages ahead of an answer, and its text."""
    value = fields[name]
    if is_transcript(value):
        return _last_answer(turns(value), name)
    if not isinstance(value, str | list | Mapping):
        raise RecordError(f"has in '{name}' neither a text nor a list of messages with role and content")
    if value == "":
        raise RecordError(f"has an empty answer in '{name}'")
    return _last_answer(answer_in(fields, name, roles), name)


def _last_answer(messages: list[Message], name: str) -> tuple[list[Message], str]:
    *before, last = messages
    if last["role"] != "assistant":
        raise RecordError(f"has a last message in '{name}' that is not the assistant's")
    if not isinstance(last.get("content"), str):
        raise RecordError(f"has a last message in '{name}' without a text")
    return before, last["content"]


def _openai(fields: Fields, roles: Roles) -> ReadPair:
    given = fields.get("input")
    if not isinstance(given, Mapping) or "non_preferred_output" not in fields:
        raise RecordError(f"has no 'input' with messages, or no 'non_preferred_output' {fields}")
    names = ("preferred_output", "non_preferred_output")
    (before, chosen), (other, rejected) = (_answer(fields, name, roles) for name in names)
    if before or other:
        raise RecordError("has more than one message in 'preferred_output' or 'non_preferred_output'")
    prompt = messages_in(given.get("messages"), "input.messages", roles)
    return ReadPair(Pair(tuple(prompt), chosen, rejected, tools_in(given)), "/".join(["input", *names]))


def _shp(fields: Fields) -> ReadPair:
    """Stanford's: ``labels`` is 1 where A is the better."""
    a, b = (fields.text(name) for name in ("human_ref_A", "human_ref_B"))
    if (label := fields.get("labels")) not in (0, 1):
        raise RecordError(f"has {label!r} in the field 'labels'; 1 says that human_ref_A is the better, 0 the other")
    prompt = {"role": "user", "content": fields.text("history")}
    chosen, rejected = (a, b) if label else (b, a)
    return ReadPair(Pair((prompt,), chosen, rejected), "SHP: history/human_ref_A/human_ref_B")


def _mend(fields: Fields, *answers: str) -> str:
    if "label" not in answers and "label" in fields:
        return "; an answer with a label is for task=kto"
    return fields.mend("prompt", *answers)
