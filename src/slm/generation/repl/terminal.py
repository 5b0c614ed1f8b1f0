"""The terminal's side of the interactive prompt: keys, completion, history."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.application import get_app
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, NestedCompleter, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout.processors import TabsProcessor
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.shortcuts import CompleteStyle

from slm.generation.repl.session import PromptCommands
from slm.notices import notice

_HISTORY = Path("~/.cache/slm/prompt_history")
_VALUES = {"overflow": ("stop", "slide")}
# A model of bytes can write what a terminal would obey: show it instead.
_VISIBLE = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"},
    127: 0x2421,
    **dict.fromkeys(range(128, 160), 0xFFFD),
}


def visible(text: str) -> str:
    """`text` with control characters shown by their pictures, but for line breaks and tabs."""
    return text.translate(_VISIBLE)


def say(text: str, faint: bool = False) -> None:
    """Show a line that is not the model's."""
    if faint and sys.stderr.isatty():
        print_formatted_text(FormattedText([("ansibrightblack", text)]), file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)


def prompt_session(commands: PromptCommands, toolbar: Callable[[], str]) -> PromptSession[str]:
    """What reads prompts of one or more lines, with `toolbar` at the bottom; Tab completes `commands`."""
    return PromptSession(
        history=_history(),
        auto_suggest=AutoSuggestFromHistory(),
        completer=_CommandCompleter(commands),
        complete_style=CompleteStyle.READLINE_LIKE,
        complete_while_typing=False,
        multiline=True,
        prompt_continuation=lambda width, line, wrapped: " " * width,
        key_bindings=_key_bindings(),
        input_processors=[TabsProcessor(char1=" ", char2=" ")],  # pasted tabs
        bottom_toolbar=toolbar,
        output=create_output(always_prefer_tty=True),  # stdout may go to a file
    )


def _key_bindings() -> KeyBindings:
    keys = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)  # and not searching the history

    @keys.add("enter", filter=typing)
    def _(event: KeyPressEvent) -> None:
        """Done, but for a line that ends in a backslash."""
        buffer = event.current_buffer
        document = buffer.document
        if document.is_cursor_at_the_end_of_line and document.current_line.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=typing)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("tab", filter=typing & Condition(lambda: not get_app().current_buffer.text.startswith("/")))
    def _(event: KeyPressEvent) -> None:
        """Indents: there is nothing to complete in a text."""
        event.current_buffer.insert_text("    ")

    return keys


class _CommandCompleter(Completer):
    """Names of commands and what follows them, behind the slash."""

    def __init__(self, commands: PromptCommands) -> None:
        values = {
            name: dict.fromkeys(("true", "false") if isinstance(value, bool) else _VALUES.get(name, ()))
            for name, value in asdict(commands.settings).items()
            if name in commands.setting_names
        }
        choices = {**dict.fromkeys(commands.names), "set": values, "save": PathCompleter(expanduser=True)}
        self._behind_slash = NestedCompleter.from_nested_dict(choices)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        if (text := document.text_before_cursor).startswith("/"):
            yield from self._behind_slash.get_completions(Document(text[1:]), event)


class _ForgivingHistory(FileHistory):
    """A prompt that cannot be stored (the disk is full, or it is no UTF-8) is lost to later sessions only."""

    def store_string(self, string: str) -> None:
        try:
            super().store_string(string)
        except (OSError, UnicodeError) as error:
            notice(f"not kept in the history: {error}")


def _history() -> History:
    file = _HISTORY.expanduser()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a+b").close()
    except OSError as error:
        notice(f"no history of earlier sessions: {error}")
        return InMemoryHistory()
    return _ForgivingHistory(str(file))
