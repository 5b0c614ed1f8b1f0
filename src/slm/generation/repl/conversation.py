"""A conversation as it grows, in the ids that the model reads."""

from __future__ import annotations

from slm.chat.renderer import ChatRenderer
from slm.tokenizers.base import Tokenizer

Message = dict[str, str]


class Conversation:
    """What was said so far.

    Attributes:
        system: what the model is told ahead of everything, perhaps an empty text; None for what the template puts there
            by itself, if anything.
        messages: the user's and the model's in turn, each ``{"role": …, "content": …}``.

    Args:
        tokenizer: has a chat template.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.system: str | None = None
        self.messages: list[Message] = []
        self._renderer = ChatRenderer(tokenizer)

    @property
    def own_beginning(self) -> str:
        """See `ChatRenderer`."""
        return self._renderer.own_beginning

    @property
    def answer_lead(self) -> str:
        """See `ChatRenderer`."""
        return self._renderer.answer_lead

    def ask(self, message: str, longest: int) -> list[int]:
        """Ids of the conversation with the user's new message, as far as the model's answer begins.

        The oldest messages are forgotten until that is at most `longest` tokens; the system's and the new one stay.

        Raises:
            UserError: the template is broken or refuses the conversation.
        """
        while True:
            ids = self.prompt_ids(message)
            if len(ids) <= longest or not self.messages:
                return ids
            del self.messages[:2]

    def keep(self, message: str, answer: str) -> None:
        """Both are part of the conversation from now on."""
        self.messages += [{"role": "user", "content": message}, {"role": "assistant", "content": answer}]

    def prompt_ids(self, message: str) -> list[int]:
        """What `ask` gives, whatever its length."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return self._renderer.prompt_ids([*system, *self.messages, {"role": "user", "content": message}])
