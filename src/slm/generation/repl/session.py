"""What was said in a session of the interactive prompt, and the slash commands: what they change and answer."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from slm.chat.records import Message
from slm.chat.renderer import ChatRenderer
from slm.errors import UserError, did_you_mean
from slm.generation.config import GenerationConfig
from slm.generation.prompt_file import fields_of
from slm.generation.prompt_ids import with_system
from slm.schema import checked
from slm.tokenizers.base import Tokenizer

LEAVE = ("exit", "quit")
_ENDINGS = {
    "eos": "the model ended it",
    "length": "max_new_tokens reached",
    "max_seq_len": "max_seq_len of the model reached",
    "stop": "a stop string",
    "interrupted": "stopped",
}
_NOT_HERE = {
    "quantize": "is done when a model is loaded: leave, and start with generation.quantize=int8",
    "chat": "is chosen by /raw",
    "system": "is told by /system",
    "batch_size": "is for a file of prompts: here one text is written at a time",
}

_HELP = """\
Type a text and Enter: the model goes on with it. A line that ends in \\ goes on in the next, Alt-Enter breaks
a line, and pasted lines are one prompt. Where a text begins with a slash, type two.
  /set NAME VALUE   change a setting: /set temperature 0.7, /set stop ["\\n\\n"]
  /show             the settings, and what was changed
  /reset            settings as at the start; a conversation is forgotten
  /probabilities    the text in the colours of how likely the model finds each token, and plain again
  /save FILE        this session's prompts and texts, into a new .jsonl or .txt
{chat}
  /help             this
  /exit             leave (Ctrl-D too)
Ctrl-C stops the text. Arrow keys recall what you typed, in earlier sessions too, Ctrl-R searches it; Tab
completes commands."""

_HELP_CHAT = """\
  /system TEXT      what the model is told ahead of the conversation, "" for an empty text; without TEXT, what its
                    template puts there by itself, if anything
  /raw              chat mode off (the model goes on with a text) and on again (it answers a message)"""

_HELP_NO_CHAT = "  /system, /raw     are for models with a chat template; this one has none"


class Conversation:
    """What was said so far, by the chat template of `tokenizer`; begins with the `settings`."""

    def __init__(self, tokenizer: Tokenizer, settings: GenerationConfig) -> None:
        # what the model is told ahead of everything, perhaps ""; None for what the template puts there by itself
        self.system = settings.system
        self.messages: list[Message] = []  # the user's and the model's in turn
        self._tokenizer = tokenizer
        self.give(settings.template_args)

    def give(self, template_args: Mapping[str, Any] | None) -> None:
        """What the template is given beside messages; `UserError` for what it does not read."""
        self.renderer = ChatRenderer(self._tokenizer, template_args=template_args)

    def ask(self, message: str, longest: float = math.inf) -> list[int]:
        """Ids of the conversation with the user's new message, as far as the model's answer begins; `UserError` if the
        template is broken or refuses it. The oldest messages are forgotten until that is at most `longest` tokens; the
        system's and the new one stay."""
        while True:
            messages = [*self.messages, {"role": "user", "content": message}]
            ids = self.renderer.prompt_ids(with_system(messages, self.system))
            if len(ids) <= longest or not self.messages:
                return ids
            del self.messages[:2]

    def keep(self, message: str, answer: str) -> None:
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
    tokens_per_second: float  # of those after the first
    mean_logprob: float | None = None  # of the text's tokens, in nats; None unless asked for
    chat: bool = False  # the prompt is a message of a conversation
    system: str | None = None  # what stood ahead of that

    @property
    def figures(self) -> str:
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
        talk = {"chat": True, "system": self.system} if self.chat else {}
        return json.dumps({"prompt": self.prompt, **fields_of(self), **talk}, ensure_ascii=False)

    def as_text(self) -> str:
        return f"user: {self.prompt}\n\nmodel: {self.text}" if self.chat else self.prompt + self.text


class PromptCommands:
    """The state of a session, and the commands on it."""

    def __init__(
        self, settings: GenerationConfig, conversation: Conversation | None, shows_probabilities: bool = False
    ) -> None:
        self.settings = self._at_start = settings  # how the next text is written
        self.conversation = conversation  # None for a model without a chat template
        # whether the next prompt is a message in the conversation
        self.chatting = self._chats_at_start = conversation is not None and settings.chat is not False
        self.shows_probabilities = shows_probabilities  # by colours
        self.exchanges: list[Exchange] = []
        self._commands: dict[str, Callable[[str], str]] = {
            "set": self._set,
            "show": self._show,
            "reset": self._reset,
            "probabilities": self._probabilities,
            "save": self._save,
            "system": self._system,
            "raw": self._raw,
            "help": lambda _: _HELP.format(chat=_HELP_NO_CHAT if conversation is None else _HELP_CHAT),
        }
        self.names = (*self._commands, LEAVE[0])
        self.setting_names = [name for name in asdict(settings) if name not in _NOT_HERE]  # what ``/set`` takes

    def run(self, line: str) -> str:
        """Carry out a line that begins with a slash and return what to show; a mistake changes nothing."""
        name, argument = _first_word(line[1:])
        if name not in self._commands:
            nearest = did_you_mean(name, self.names)
            return f"there is no command /{name}{nearest} (/help lists them; // begins a text with a slash)"
        try:
            return self._commands[name](argument)
        except UserError as error:
            return str(error)

    def _set(self, argument: str) -> str:
        name, value = _first_word(argument)
        if name in _NOT_HERE:
            return f"{name} {_NOT_HERE[name]}"
        if name not in self.setting_names:
            nearest = did_you_mean(name, self.setting_names)
            wrong = f"there is no setting '{name}'{nearest}" if name else "/set NAME VALUE"
            return f"{wrong} (names: {', '.join(self.setting_names)})"
        if not value:
            return f"{self._line(name)}; /set NAME VALUE changes it: /set {name} …"
        try:
            changed = {**asdict(self.settings), name: yaml.safe_load(value)}
        except yaml.YAMLError:
            raise UserError(f"{name}: cannot read '{value}'; lists are typed [a, b], mappings {{5: 1.0}}") from None
        settings = checked(GenerationConfig, changed)
        if name == "template_args" and (settings.template_args or self.conversation):
            self._needs_template("/set template_args").give(settings.template_args)
        self.settings = settings
        return self._line(name)

    def _show(self, _: str) -> str:
        lines = [self._line(name) for name in self.setting_names]
        if self.conversation is not None:
            lines.append(f"  chat mode: {'on' if self.chatting else 'off'} (/raw)")
            lines.append(f"  system: {_ahead(self.conversation)}")
            lines.append(f"  conversation: {len(self.conversation.messages)} messages")
        return "\n".join(lines)

    def _line(self, name: str) -> str:
        now, before = getattr(self.settings, name), getattr(self._at_start, name)
        return f"  {name} = {_as_typed(now)}" + (f" (at the start {_as_typed(before)})" if now != before else "")

    def _reset(self, _: str) -> str:
        self.settings = self._at_start
        if self.conversation is None:
            return "settings as at the start"
        self.conversation.messages.clear()
        self.conversation.system = self.settings.system
        self.conversation.give(self.settings.template_args)
        self.chatting = self._chats_at_start
        return "settings as at the start, nothing said so far"

    def _probabilities(self, _: str) -> str:
        self.shows_probabilities = not self.shows_probabilities
        return "texts in the colours of their probability" if self.shows_probabilities else "texts in one colour"

    def _save(self, argument: str) -> str:
        if not argument:
            return "/save FILE (a new file that ends in .jsonl or .txt)"
        if not self.exchanges:
            return "nothing was written yet"
        file = Path(argument).expanduser()
        if file.suffix == ".jsonl":
            content = "".join(f"{exchange.as_json()}\n" for exchange in self.exchanges)
        elif file.suffix == ".txt":
            content = "\n\n---\n\n".join(exchange.as_text() for exchange in self.exchanges) + "\n"
        else:
            return f"'{file}' should end in .jsonl or .txt"
        try:
            with file.open("x", encoding="utf-8") as out:
                out.write(content)
        except FileExistsError:
            return f"'{file}' is there already and is left as it is; give another name"
        except OSError as error:
            return f"'{file}' cannot be written: {error.strerror}"
        return f"{len(self.exchanges)} prompt{'s' if len(self.exchanges) != 1 else ''} with their texts in '{file}'"

    def _system(self, argument: str) -> str:
        conversation = self._needs_template("/system")
        before, conversation.system = conversation.system, "" if argument == '""' else argument or None
        try:
            conversation.ask("a message")
        except UserError:
            conversation.system = before
            raise
        told = "this" if conversation.system else _ahead(conversation)
        off = "" if self.chatting else "; chat mode is off, /raw turns it on"
        return f"ahead of the conversation the model is told {told}{off}"

    def _raw(self, _: str) -> str:
        self._needs_template("/raw")
        self.chatting = not self.chatting
        return "chat mode: the model answers" if self.chatting else "raw: the model goes on with what you type"

    def _needs_template(self, command: str) -> Conversation:
        if self.conversation is None:
            raise UserError(f"this model has no chat template, which {command} needs: it goes on with what you type")
        return self.conversation


def _ahead(conversation: Conversation) -> str:
    if conversation.system is not None:
        return conversation.system or "an empty text"
    own = conversation.renderer.own_beginning
    return f"what the template puts there: {_as_typed(own)}" if own else "nothing"


def _first_word(text: str) -> tuple[str, str]:
    """The first word and what follows it, without spaces around."""
    first, *rest = text.strip().split(maxsplit=1) or [""]
    return first, "".join(rest)


def _as_typed(value: object) -> str:
    """A setting as ``/set`` takes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_as_typed(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
