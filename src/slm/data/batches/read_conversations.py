"""Files of conversations to a training and a validation part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slm.chat.records import Form, NotAConversationError, conversation_of
from slm.chat.renderer import Message
from slm.data.config import CorpusConfig
from slm.data.corpora.records import record_files
from slm.data.documents.source import file_sources
from slm.data.faults import Faults
from slm.errors import UserError

Conversation = Sequence[Message]


@dataclass(frozen=True)
class Conversations:
    """Training and validation conversations, each in the order of the files."""

    train: list[Conversation]
    val: list[Conversation]


def read_conversations(corpus: CorpusConfig, faults: Faults) -> Conversations:
    """All conversations of a corpus of kind "instructions".

    Without ``val_path`` the share `val_fraction` is held out: those with the smallest hash, so that equal ones stay
    together and a record more moves few others.

    Args:
        corpus: which files.
        faults: told of what is no conversation.

    Raises:
        UserError: files are missing, a part would be empty, or a fault that is refused.
    """
    form: Form = corpus.settings.get("form", "auto")
    train = _read(record_files(corpus.settings["path"]), corpus, form, faults)
    if corpus.settings.get("val_path"):
        parts = Conversations(train, _read(record_files(corpus.settings["val_path"]), corpus, form, faults))
    else:
        parts = _split(train, corpus.val_fraction)
    for name, part in (("training", parts.train), ("validation", parts.val)):
        if not part:
            raise UserError(f"data: there is no conversation for {name}; give more records, or data.val_path")
    return parts


def read_part(corpus: CorpusConfig, part: Literal["train", "val", "all"], faults: Faults) -> list[Conversation]:
    """As `read_conversations`, of one part, or both: files of no use to it are not read."""
    val_path = corpus.settings.get("val_path")
    if part == "val" and val_path:
        return _read(record_files(val_path), corpus, corpus.settings.get("form", "auto"), faults)
    parts = read_conversations(corpus, faults)
    return {"train": parts.train, "val": parts.val, "all": [*parts.train, *parts.val]}[part]


def _read(files: Sequence[Path], corpus: CorpusConfig, form: Form, faults: Faults) -> list[Conversation]:
    found: list[Conversation] = []
    for source in file_sources(files, corpus.reading):
        for span in source.spans():
            for record in source.records(span, faults):
                try:
                    found.append(conversation_of(record.values, form))
                except NotAConversationError as error:
                    refusal = f"{source.where(record.place)} {error}"
                    faults.add("no_conversation", f"{source.name}{record.place}", refusal)
    return found


def _split(conversations: Sequence[Conversation], val_fraction: float) -> Conversations:
    digests = [
        hashlib.sha256(json.dumps(conversation, sort_keys=True, default=dict).encode()).digest()
        for conversation in conversations
    ]
    wanted = max(1, round(val_fraction * len(conversations)))
    border = sorted(digests)[min(wanted, len(digests)) - 1] if digests else b""
    parts: tuple[list[Conversation], list[Conversation]] = ([], [])
    for conversation, digest in zip(conversations, digests, strict=True):
        parts[digest <= border].append(conversation)
    return Conversations(*parts)
