"""What the slash commands of the interactive prompt change, and what they answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import yaml

from slm.errors import UserError, did_you_mean
from slm.generation.config import GenerationConfig
from slm.generation.repl.session import Conversation, Exchange, save
from slm.schema import checked

LEAVE = ("exit", "quit")
_NOT_HERE = {
    "quantize": "is done when a model is loaded: leave, and start with generation.quantize=int8",
    "chat": "is chosen by /raw",
    "batch_size": "is for a file of prompts: here one text is written at a time",
}

_HELP = """\
Type a text and Enter: the model goes on with it. A line that ends in \\ goes on in the next, Alt-Enter breaks
a line, and pasted lines are one prompt. Where a text begins with a slash, type two.
  /set NAME VALUE   change a setting: /set temperature 0.7, /set stop ["\\n\\n"]
  /show             the settings, and what was changed
  /reset            settings as at the start; a conversation is forgotten
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


class PromptCommands:
    """The state of a session, and the commands on it.

    Attributes:
        settings: how the next text is written.
        conversation: None for a model without a chat template.
        chatting: the next prompt is a message in the conversation.
        exchanges: everything written in this session.
        names: of the commands.
    """

    def __init__(self, settings: GenerationConfig, conversation: Conversation | None) -> None:
        self.settings = self._at_start = settings
        self.conversation = conversation
        self.chatting = self._chats_at_start = conversation is not None and settings.chat is not False
        self.exchanges: list[Exchange] = []
        self._commands: dict[str, Callable[[str], str]] = {
            "set": self._set,
            "show": self._show,
            "reset": self._reset,
            "save": self._save,
            "system": self._system,
            "raw": self._raw,
            "help": self._help,
        }
        self.names = (*self._commands, LEAVE[0])

    @property
    def setting_names(self) -> list[str]:
        """What ``/set`` takes."""
        return [name for name in asdict(self.settings) if name not in _NOT_HERE]

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
        self.settings = checked(GenerationConfig, changed)
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
        self.conversation.system = None
        self.chatting = self._chats_at_start
        return "settings as at the start, nothing said so far"

    def _save(self, argument: str) -> str:
        if not argument:
            return "/save FILE (a new file that ends in .jsonl or .txt)"
        if not self.exchanges:
            return "nothing was written yet"
        file = Path(argument).expanduser()
        save(self.exchanges, file)
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

    def _help(self, _: str) -> str:
        return _HELP.format(chat=_HELP_NO_CHAT if self.conversation is None else _HELP_CHAT)


def _ahead(conversation: Conversation) -> str:
    """What the model is told ahead."""
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
