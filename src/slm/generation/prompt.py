"""The interactive prompt: type text, read how the model goes on."""

from __future__ import annotations

import sys

from slm.errors import UserError
from slm.generation.config import GenerationConfig
from slm.generation.conversation import Conversation
from slm.generation.language_model import LanguageModel
from slm.generation.prompt_commands import LEAVE, PromptCommands
from slm.generation.prompt_terminal import PromptTerminal


class InteractivePrompt:
    """Reads prompts, streams texts, obeys slash commands.

    Args:
        language_model: what writes. If its tokenizer has a chat template, prompts are messages of a conversation.
        settings: what to begin with; ``/set`` changes them.
    """

    def __init__(self, language_model: LanguageModel, settings: GenerationConfig) -> None:
        self.language_model = language_model
        tokenizer = language_model.tokenizer
        conversation = None if tokenizer.chat_template is None else Conversation(tokenizer)
        self.commands = PromptCommands(settings, conversation)

    def run(self) -> None:
        """Until ``/exit`` or the end of input. Without a terminal, a prompt a line is read from stdin.

        At a terminal nothing but leaving ends the session; elsewhere, Ctrl-C does.
        """
        if sys.stdin.isatty():
            self._talk()
            return
        for line in sys.stdin:
            try:
                self.write(line.rstrip("\n"), chat=False)
            except UserError as error:
                print(flush=True)
                print(error, file=sys.stderr)

    def _talk(self) -> None:
        commands = self.commands
        what = "Type a message" if commands.chatting else "Type a text to go on with"
        print(f"{what}; /help for more, /exit to leave.", file=sys.stderr)
        terminal = PromptTerminal(commands, self._toolbar)
        while True:
            try:
                line = terminal.read("you> " if commands.chatting else "> ")
                if line.strip() in [f"/{name}" for name in LEAVE]:
                    return
                if line.startswith("/") and not line.startswith("//"):
                    terminal.say(commands.run(line))
                elif line:
                    for exchange in self.write(line.removeprefix("/"), commands.chatting):
                        terminal.say(exchange.figures, faint=True)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            except BrokenPipeError:
                raise
            except UserError as error:
                terminal.say(str(error))
            except Exception as error:  # whatever it is (no memory left, say), the session goes on
                terminal.say(f"{type(error).__name__}: {error}")
