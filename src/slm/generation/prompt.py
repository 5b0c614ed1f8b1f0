"""The interactive prompt: type text, read how the model goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import yaml
from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory

from slm.errors import UserError, did_you_mean
from slm.generation.config import GenerationConfig
from slm.generation.language_model import LanguageModel
from slm.schema import checked

_HISTORY = Path("~/.cache/slm/prompt_history")

_HELP = """\
Type a text and Enter: the model goes on with it. \\n in it stands for a line break.
  /set NAME VALUE   change a setting, e.g. /set temperature 0.7
  /show             the settings
  /help             this
  /exit             leave (Ctrl-D too)
Ctrl-C stops the text that is being written. Arrow keys recall what you typed, also in earlier sessions."""


class InteractivePrompt:
    """Reads lines, streams continuations, obeys slash commands.

    Args:
        language_model: what writes.
        settings: what to begin with; ``/set`` changes them.
    """

    def __init__(self, language_model: LanguageModel, settings: GenerationConfig) -> None:
        self.language_model = language_model
        self.settings = settings
        self._commands: dict[str, Callable[[str], str]] = {
            "help": lambda _: _HELP,
            "show": self._show,
            "set": self._set,
        }

    def run(self) -> None:
        """Until ``/exit`` or the end of input. Without a terminal, a prompt a line is read from stdin."""
        if not sys.stdin.isatty():
            for line in sys.stdin:
                self._write(line.rstrip("\n"))
            return
        history = _HISTORY.expanduser()
        history.parent.mkdir(parents=True, exist_ok=True)
        session: PromptSession[str] = PromptSession(
            history=FileHistory(str(history)),
            auto_suggest=AutoSuggestFromHistory(),
            completer=WordCompleter([f"/{name}" for name in (*self._commands, "exit")], sentence=True),
            complete_while_typing=False,
        )
        print("Type a text to go on with; /help for more, /exit to leave.", file=sys.stderr)
        while True:
            try:
                line = session.prompt("> ")
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if line.strip() in ("/exit", "/quit"):
                return
            if line.startswith("/"):
                print(self.command(line), file=sys.stderr)
            elif line:
                self._write(line.replace("\\n", "\n"))

    def command(self, line: str) -> str:
        """Carry out a slash command and return what to show."""
        name, _, argument = line[1:].strip().partition(" ")
        if name not in self._commands:
            return f"there is no command /{name}{did_you_mean(name, [*self._commands, 'exit'])} (/help lists them)"
        return self._commands[name](argument.strip())

    def _write(self, prompt: str) -> None:
        start = time.perf_counter()
        characters = 0
        try:
            for piece in self.language_model.stream(prompt, self.settings):
                characters += len(piece)
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            pass  # stops the text, not the program
        except UserError as error:
            print(error, file=sys.stderr)
        print(flush=True)
        if sys.stderr.isatty() and characters:
            print(f"[{characters} characters, {time.perf_counter() - start:.1f} s]", file=sys.stderr)

    def _show(self, _: str) -> str:
        return "\n".join(f"  {name} = {_as_typed(value)}" for name, value in asdict(self.settings).items())

    def _set(self, argument: str) -> str:
        name, _, value = argument.partition(" ")
        names = list(asdict(self.settings))
        if name not in names or not value:
            return f"/set NAME VALUE{did_you_mean(name, names)} (names: {', '.join(names)})"
        try:
            changed = {**asdict(self.settings), name: yaml.safe_load(value)}
            self.settings = checked(GenerationConfig, changed)
        except (UserError, yaml.YAMLError) as error:
            return str(error)
        return f"  {name} = {_as_typed(getattr(self.settings, name))}"


def _as_typed(value: object) -> str:
    """A setting as one would type it."""
    return "null" if value is None else str(value).lower()
