"""Texts that write who speaks: ``### Human: … ### Assistant: …`` (Guanaco), ``Human: …`` in paragraphs (HH-RLHF)."""

import re

from slm.chat.records import Message

_ROLES = {"Human": "user", "Assistant": "assistant", "System": "system"}
_HEADINGS = (
    re.compile(r"\s*### (Human|Assistant|System):"),
    re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):"),
)


def is_transcript(value: object) -> bool:
    """Both speak in it."""
    return isinstance(value, str) and any({"Human", "Assistant"} <= set(one.findall(value)) for one in _HEADINGS)


def turns(text: str) -> list[Message]:
    """Of a transcript, without the white space around each turn; what stands ahead of the first is the system's."""
    heading = next(one for one in _HEADINGS if {"Human", "Assistant"} <= set(one.findall(text)))
    ahead, *rest = heading.split(text)
    system: list[Message] = [{"role": "system", "content": ahead.strip()}] if ahead.strip() else []
    spoken = zip(rest[::2], rest[1::2], strict=True)
    return [*system, *({"role": _ROLES[who], "content": said.strip()} for who, said in spoken)]
