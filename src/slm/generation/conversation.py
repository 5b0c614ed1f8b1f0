"""A conversation, and how a model's chat template writes it."""

from __future__ import annotations

import datetime
import functools
import json
from typing import TYPE_CHECKING, Any

from slm.errors import UserError
from slm.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    import jinja2

Message = dict[str, str]


class Conversation:
    """What was said so far.

    Attributes:
        system: what the model is told ahead of everything; None for nothing.
        messages: the user's and the model's in turn, each ``{"role": …, "content": …}``.

    Args:
        tokenizer: has a chat template.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.system: str | None = None
        self.messages: list[Message] = []
        self._tokenizer = tokenizer

    def ask(self, message: str, longest: int) -> list[int]:
        """Ids of the conversation with the user's new message, as far as the model's answer begins.

        The oldest messages are forgotten until that is at most `longest` tokens; the system's and the new one stay.
        Special tokens that a message spells are those tokens, as in `transformers`.

        Raises:
            UserError: the template is broken or refuses the conversation.
        """
        while True:
            ids = self._tokenizer.encode_rendered(self.rendered(message))
            if len(ids) <= longest or not self.messages:
                return ids
            del self.messages[:2]

    def keep(self, message: str, answer: str) -> None:
        """Both are part of the conversation from now on."""
        self.messages += [{"role": "user", "content": message}, {"role": "assistant", "content": answer}]

    def rendered(self, message: str) -> str:
        """The text that `ask` encodes, whatever its length."""
        import jinja2

        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages = [*system, *self.messages, {"role": "user", "content": message}]
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._names)
        except jinja2.TemplateError as error:
            raise UserError(f"the model's chat template refuses this: {error}") from None

    @functools.cached_property
    def _template(self) -> jinja2.Template:
        return compiled(self._tokenizer.chat_template or "")

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        """``bos_token``, ``eos_token``, …: spellings that the template may ask for."""
        names = dict(self._tokenizer.special_names)
        if "eos_token" not in names:
            names["eos_token"] = self._tokenizer.to_huggingface().id_to_token(self._tokenizer.eos_id) or ""
        return names


def compiled(template: str) -> jinja2.Template:
    """A chat template of Hugging Face's kind, in a sandbox and with the additions that `transformers` gives it.

    Raises:
        jinja2.TemplateError: it is not Jinja.
    """
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}…{% endgeneration %}`` marks the model's words, for training; here they are just text."""

        tags = {"generation"}  # noqa: RUF012  (as jinja2 declares it)

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, **layout: Any) -> str:  # jinja2's own escapes what HTML needs escaped
        return json.dumps(value, **{"ensure_ascii": False, **layout})

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(template)
