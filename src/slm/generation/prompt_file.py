"""A file of prompts and the answers to them, a line of JSON each as it is done."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from slm.errors import UserError
from slm.generation.completion import Completion
from slm.generation.config import Prompt
from slm.schema import checked

_OWN = ("max_new_tokens", "seed", "system")
_MOST_BYTES = 128 << 20  # they are held in memory


def read_prompts(file: Path) -> list[Prompt]:
    """One prompt a line; of a ``.jsonl`` file, the field ``prompt`` of each line, or ``messages`` to answer. Blank
    lines are passed over. A line of JSON may also have ``tools``, ``system``, ``max_new_tokens`` and ``seed``; other
    fields are nothing to us. Raises `UserError` where the file is missing, not text, or a line of it has no
    prompt, or a budget or seed that is none."""
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise UserError(f"prompts: '{file}' is longer than {_MOST_BYTES >> 20} MiB; split it")
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"prompts: there is no file '{file}'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"prompts: cannot read '{file}' as text ({error})") from None
    lines = {number: line for number, line in enumerate(text.split("\n"), start=1) if line.strip()}
    if not lines:
        raise UserError(f"prompts: '{file}' holds no prompt")
    if file.suffix != ".jsonl":
        return [Prompt(line, line=number) for number, line in lines.items()]
    return [_prompt_of(line, number, file) for number, line in lines.items()]


def answered_before(file: Path, prompts: Sequence[Prompt]) -> int:
    """How many of `prompts` an interrupted run has answered in `file`; a line it was cut off in is taken off. A file
    with something else than answers to these prompts is a `UserError`."""
    if not file.is_file():
        return 0
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"out: cannot read '{file}' ({error.strerror}); name another file") from None
    *whole, begun = content.split(b"\n")
    for number, line in enumerate([*whole, begun] if begun else whole):
        asked = _said(prompts[number]) if number < len(prompts) else None
        if asked is None or not (_asked(line) == asked if number < len(whole) else _begins(line, asked)):
            where = f"out: line {number + 1} of '{file}'"
            raise UserError(f"{where} is no answer to prompt {number + 1}; name another file")
    if begun:
        with file.open("r+b") as cut:
            cut.truncate(len(content) - len(begun))
    return len(whole)


def open_answers(file: Path) -> TextIO:
    """`file`, to append answers to; a `UserError` where it cannot be written."""
    try:
        return file.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"out: cannot write '{file}' ({error.strerror}); name another place") from None


def answer_of(asked: Prompt, completions: list[Completion]) -> dict[str, Any]:
    """What a line says: the text of one continuation, or a list of several; of a prompt that was refused, why."""
    said, refusal = _said(asked), completions[0].refusal
    if refusal is not None:
        return {**said, "finish_reason": "refused", "error": refusal, "line": asked.line}
    answers = [
        {**fields_of(one), **({} if one.logprobs is None else {"ids": one.ids, "logprobs": one.logprobs})}
        for one in completions
    ]
    return {**said, **answers[0]} if len(answers) == 1 else {**said, "completions": answers}


def fields_of(written: Any) -> dict[str, Any]:
    """The text, and how it came about, of what has the attributes of a `Completion`."""
    return {
        "completion": written.text,
        "finish_reason": written.finish_reason,
        "prompt_tokens": written.prompt_tokens,
        "new_tokens": written.new_tokens,
        "seconds_to_first_token": round(written.seconds_to_first_token, 4),
        "tokens_per_second": round(written.tokens_per_second, 2),
    }


def _said(prompt: Prompt) -> dict[str, Any]:
    """A prompt as a line has it, and its answer."""
    asked: dict[str, Any] = {"prompt": prompt.text} if prompt.messages is None else {"messages": prompt.messages}
    return {**asked, "tools": prompt.tools} if prompt.tools else asked


def _asked(line: str | bytes) -> dict[str, Any] | None:
    """What a line of JSON asks; None where that is nothing, or no text."""
    with contextlib.suppress(ValueError, AttributeError):
        found = json.loads(line)
        name = "messages" if found.get("messages") else "prompt"
        asked = {name: found.get(name), **({"tools": found["tools"]} if found.get("tools") else {})}
        json.dumps(asked, ensure_ascii=False).encode()  # JSON can spell half a surrogate pair, which is no text
        if name == "messages" or isinstance(asked["prompt"], str):
            return asked
    return None


def _begins(line: bytes, asked: Mapping[str, Any]) -> bool:
    head = json.dumps(asked, ensure_ascii=False)[:-1].encode()
    return line.startswith(head) or head.startswith(line)


def _prompt_of(line: str, number: int, file: Path) -> Prompt:
    asked = _asked(line)
    where = f"prompts: line {number} of '{file}'"
    if asked is None:
        raise UserError(f'{where} has no prompt; expected {{"prompt": "…"}} or {{"messages": […]}}')
    found = json.loads(line)
    if "messages" in asked and found.get("prompt") is not None:
        raise UserError(f"{where} has a prompt and messages; take one of them out")
    what = {"text" if name == "prompt" else name: value for name, value in asked.items()}
    own = {key: value for key, value in found.items() if key in _OWN and value is not None}
    try:
        return checked(Prompt, {**what, "line": number, **own})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
