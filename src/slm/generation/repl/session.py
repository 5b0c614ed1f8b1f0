"""What was said in a session of the interactive prompt."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slm.chat.message import Message
from slm.chat.renderer import ChatRenderer
from slm.errors import UserError
from slm.tokenizers.base import Tokenizer

_ENDINGS = {
    "eos": "the model ended it",
    "length": "max_new_tokens reached",
    "max_seq_len": "max_seq_len of the model reached",
    "stop": "a stop string",
    "interrupted": "stopped",
}


class Conversation:
    """What was said so far, by the chat template of `tokenizer`.

    Attributes:
        system: what the model is told ahead of everything, perhaps an empty text; None for what the template puts there
            by itself, if anything.
        messages: the user's and the model's in turn.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.system: str | None = None
        self.messages: list[Message] = []
        self.renderer = ChatRenderer(tokenizer)

    def ask(self, message: str, longest: float = math.inf) -> list[int]:
        """Ids of the conversation with the user's new message, as far as the model's answer begins.

        The oldest messages are forgotten until that is at most `longest` tokens; the system's and the new one stay.

        Raises:
            UserError: the template is broken or refuses the conversation.
        """
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        while True:
            ids = self.renderer.prompt_ids([*system, *self.messages, {"role": "user", "content": message}])
            if len(ids) <= longest or not self.messages:
                return ids
            del self.messages[:2]

    def keep(self, message: str, answer: str) -> None:
        """Both are part of the conversation from now on."""
        self.messages += [{"role": "user", "content": message}, {"role": "assistant", "content": answer}]


@dataclass(frozen=True)
class Exchange:
    """A prompt as it was typed, and the text that came of it."""

    prompt: str
    text: str
    finish_reason: str  # as in `Completion`; ``interrupted`` where Ctrl-C stopped it
    prompt_tokens: int  # what the model read, an earlier conversation included
    new_tokens: int
    seconds_to_first_token: float  # from the call on
    seconds: float  # to the last token
    mean_logprob: float | None = None  # of the text's tokens, in nats; None unless asked for
    chat: bool = False  # the prompt is a message of a conversation
    system: str | None = None  # what stood ahead of that

    @property
    def tokens_per_second(self) -> float:
        """Of those after the first."""
        later = self.seconds - self.seconds_to_first_token
        return (self.new_tokens - 1) / later if later > 0 else 0.0

    @property
    def figures(self) -> str:
        """A line about how it came."""
        parts = [f"{self.new_tokens:,} token{'s' if self.new_tokens != 1 else ''}"]
        if self.new_tokens > 1:
            parts.append(f"{self.tokens_per_second:,.1f} tokens/s")
        if self.new_tokens:
            parts.append(f"first after {self.seconds_to_first_token:.3f} s")
        if self.mean_logprob is not None:
            parts.append(f"mean log-probability {self.mean_logprob:.3f}")
        return f"[{', '.join(parts)}; {_ENDINGS[self.finish_reason]}]"

    def as_json(self) -> str:
        """A line with the fields of the answers to ``prompts=FILE``, and ``chat`` and ``system`` of a conversation."""
        fields = {
            "prompt": self.prompt,
            "completion": self.text,
            "finish_reason": self.finish_reason,
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "seconds_to_first_token": round(self.seconds_to_first_token, 4),
            "tokens_per_second": round(self.tokens_per_second, 2),
            **({"chat": True, "system": self.system} if self.chat else {}),
        }
        return json.dumps(fields, ensure_ascii=False)

    def as_text(self) -> str:
        """Prompt and continuation as one text, or who said what."""
        return f"user: {self.prompt}\n\nmodel: {self.text}" if self.chat else self.prompt + self.text


def save(exchanges: Sequence[Exchange], file: Path) -> None:
    """Write them to a new file: ``.jsonl``, a line each, or ``.txt``.

    Raises:
        UserError: the name ends in neither, the file is there, or it cannot be written.
    """
    if file.suffix == ".jsonl":
        content = "".join(f"{exchange.as_json()}\n" for exchange in exchanges)
    elif file.suffix == ".txt":
        content = "\n\n---\n\n".join(exchange.as_text() for exchange in exchanges) + "\n"
    else:
        raise UserError(f"'{file}' should end in .jsonl or .txt")
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(content)
    except FileExistsError:
        raise UserError(f"'{file}' is there already and is left as it is; give another name") from None
    except OSError as error:
        raise UserError(f"'{file}' cannot be written: {error.strerror}") from None
