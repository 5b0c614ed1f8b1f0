"""Hugging Face chat templates, compiled: Jinja in a sandbox, with the additions that `transformers` gives it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

RESPONSE_BEGINS, RESPONSE_ENDS = "\ufdd0", "\ufdd1"
"""What stands around ``{% generation %}…{% endgeneration %}`` in rendered text: characters that no text may hold."""


def compiled(template: str, now: datetime.datetime | None = None) -> jinja2.Template:
    """A chat template, ready to render.

    Args:
        template: its source.
        now: what ``strftime_now`` tells; None for the time at which it is asked.

    Raises:
        jinja2.TemplateError: it is not Jinja.
    """
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}…{% endgeneration %}`` marks the model's words, for training."""

        tags = {"generation"}  # noqa: RUF012  (as jinja2 declares it)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("marked"), [], [], body).set_lineno(line)

        def marked(self, caller: Callable[[], str]) -> str:
            return f"{RESPONSE_BEGINS}{caller()}{RESPONSE_ENDS}"

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, **layout: Any) -> str:  # jinja2's own escapes what HTML needs escaped
        return json.dumps(value, **{"ensure_ascii": False, **layout})

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: (now or datetime.datetime.now()).strftime(form)
    return environment.from_string(template)
