"""The interactive prompt: type text, read how the model goes on."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from slm.errors import UserError
from slm.generation.completion import Completion
from slm.generation.config import GenerationConfig
from slm.generation.language_model import LanguageModel
from slm.generation.prefixes import Prefixes
from slm.generation.probability_colours import ProbabilityColours
from slm.generation.prompt_ids import check_no_chat
from slm.generation.repl.session import LEAVE, Conversation, Exchange, PromptCommands
from slm.generation.repl.terminal import prompt_session, say, visible


class InteractivePrompt:
    """Reads prompts, streams texts, obeys slash commands; a model with a chat template gets messages."""

    def __init__(
        self, language_model: LanguageModel, settings: GenerationConfig, shows_probabilities: bool = False
    ) -> None:
        self.language_model = language_model
        language_model.prefixes = language_model.prefixes or Prefixes()  # a talk is read once, not at every turn
        self.longest = language_model.model.config.params.max_seq_len
        tokenizer = language_model.tokenizer
        wanted = tokenizer.chat_template is not None or settings.chat is True  # without a template: refused
        if not wanted:
            check_no_chat(settings, tokenizer)
        self.commands = PromptCommands(
            settings, Conversation(tokenizer, settings) if wanted else None, shows_probabilities
        )

    def run(self) -> None:
        """Until ``/exit`` or the end of input. Without a terminal, a prompt a line is read from stdin, each on its own.
        At a terminal nothing but leaving ends the session; elsewhere, Ctrl-C does."""
        if sys.stdin.isatty():
            self._talk()
            return
        for line in sys.stdin:
            try:
                list(self.write(line.rstrip("\n"), self.commands.chatting))
            except UserError as error:
                print(flush=True)
                print(error, file=sys.stderr)
            if self.commands.conversation is not None:
                self.commands.conversation.messages.clear()

    def _talk(self) -> None:
        commands = self.commands
        what = "Type a message" if commands.chatting else "Type a text to go on with"
        say(f"{what}; /help for more, /exit to leave.")
        if commands.shows_probabilities:
            say(ProbabilityColours(sys.stdout).legend)
        session = prompt_session(commands, self._toolbar)
        while True:
            try:
                line = session.prompt("you> " if commands.chatting else "> ")
                if line.strip() in [f"/{name}" for name in LEAVE]:
                    return
                if line.startswith("/") and not line.startswith("//"):
                    say(commands.run(line))
                elif line:
                    for exchange in self.write(line.removeprefix("/"), commands.chatting):
                        say(exchange.figures, faint=True)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            except BrokenPipeError:
                raise
            except Exception as error:  # whatever it is (no memory left, say), the session goes on
                say(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")

    def write(self, prompt: str, chat: bool) -> Iterator[Exchange]:
        """Write ``n`` texts to stdout, giving out what there is to say of each; Ctrl-C stops the one under way. In a
        chat the last of them is the model's answer in the conversation."""
        conversation = self.commands.conversation if chat else None
        settings = self.commands.settings
        prompt_ids = self._prompt_ids(prompt, conversation)
        system, lead = (conversation.system, conversation.renderer.answer_lead) if conversation else (None, "")
        for number in range(settings.n):
            if settings.n > 1 and sys.stdin.isatty():
                say(f"-- {number + 1} of {settings.n}")
            seed = None if settings.seed is None else settings.seed + number
            about = {"prompt": prompt, "chat": conversation is not None, "system": system}
            exchange = self._stream(prompt_ids, replace(settings, n=1, seed=seed), lead, about)
            self.commands.exchanges.append(exchange)
            yield exchange
            if exchange.finish_reason == "interrupted":
                break
        if conversation is not None and exchange.text:
            conversation.keep(prompt, exchange.text)

    def _prompt_ids(self, prompt: str, conversation: Conversation | None) -> list[int]:
        tokenizer = self.language_model.tokenizer
        if conversation is None:
            return [*tokenizer.begin_ids, *tokenizer.encode(prompt)]
        room = min(self.commands.settings.max_new_tokens, self.longest // 4)  # for the answer
        before = len(conversation.messages)
        prompt_ids = conversation.ask(prompt, self.longest - room)
        if forgotten := before - len(conversation.messages):
            say(f"(the oldest {forgotten} messages are forgotten: the model takes {self.longest:,} tokens)")
        return prompt_ids

    def _stream(self, ids: Sequence[int], settings: GenerationConfig, lead: str, about: Mapping[str, Any]) -> Exchange:
        start = time.perf_counter()
        pieces: list[str] = []
        completion: Completion | None = None
        colours = ProbabilityColours(sys.stdout) if self.commands.shows_probabilities else None
        if colours is not None:
            settings = replace(settings, logprobs=True)
        first = last = 0.0
        try:
            for event in self.language_model.follow(ids, settings, lead):
                if isinstance(event, Completion):
                    completion = event
                    break
                last = time.perf_counter() - start
                first = first or last
                pieces.append(event.text)
                shown = visible(event.text) if sys.stdout.isatty() else event.text
                print(shown if colours is None else colours.of(event, shown), end="", flush=True)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
        print(flush=True)
        logprobs = completion.logprobs if completion else None
        new_tokens = completion.new_tokens if completion else len(pieces)
        return Exchange(
            **about,
            text="".join(pieces),
            finish_reason=completion.finish_reason if completion else "interrupted",
            prompt_tokens=len(ids),
            new_tokens=new_tokens,
            seconds_to_first_token=first,
            tokens_per_second=(new_tokens - 1) / (last - first) if last > first else 0.0,
            mean_logprob=sum(logprobs) / len(logprobs) if logprobs else None,
        )

    def _toolbar(self) -> str:
        commands, settings = self.commands, self.commands.settings
        parts = []
        if commands.conversation is not None:
            parts.append(f"chat, {len(commands.conversation.messages)} messages" if commands.chatting else "raw")
        if commands.exchanges:
            exchange = commands.exchanges[-1]
            parts.append(f"{exchange.prompt_tokens + exchange.new_tokens:,} of {self.longest:,} tokens")
            parts.append(f"{exchange.tokens_per_second:,.1f} tokens/s")
        parts.append("greedy" if settings.greedy else f"temperature {settings.temperature:g}, top_k {settings.top_k}")
        return " " + " | ".join([*parts, "/help"])
