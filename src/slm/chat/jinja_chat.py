"""Hugging Face chat templates: Jinja in its sandbox, with the additions that `transformers` gives it."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock
from jinja2.sandbox import ImmutableSandboxedEnvironment

from slm.errors import UserError

RESPONSE_BEGINS, RESPONSE_ENDS = "\ufdd0", "\ufdd1"
"""What stands around ``{% generation %}…{% endgeneration %}`` in rendered text: characters that no text may hold."""


def rendered(template: str, now: datetime | None, names: Mapping[str, Any]) -> str:
    """The text that the source `template` makes of `names`; `now` is what ``strftime_now`` tells, None for the time at
    which it is asked. `UserError` if it is not Jinja, refuses these names, or does what the sandbox forbids."""
    with _refusals():
        return _compiled(template, now).render(names)


def names_read(template: str) -> set[str]:
    """What the source `template` reads of the names that it is given; `UserError` if it is not Jinja."""
    with _refusals():
        jinja = _environment(None)
        return meta.find_undeclared_variables(jinja.parse(template)) - jinja.globals.keys()


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except jinja2.TemplateError as error:
        words = str(error)
    except Exception as error:  # an operation on the wrong type, a range too long: whatever Python says of it
        words = f"{type(error).__name__}: {error}"
    else:
        return
    raise UserError(f"the model's chat template refuses this: {' '.join(words.split())[:500]}")


@functools.lru_cache(maxsize=8)
def _compiled(template: str, now: datetime | None) -> jinja2.Template:
    return _environment(now).from_string(template)


def _environment(now: datetime | None) -> ImmutableSandboxedEnvironment:
    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    jinja.filters["tojson"] = _to_json  # without the escapes for HTML of jinja2's own
    jinja.globals |= {
        "raise_exception": _refuse,
        "strftime_now": lambda form: (now or datetime.now()).strftime(form),
        "namespace": _Namespace,
        "dict": _Dict(),
    }
    return jinja


class _Generation(Extension):
    """``{% generation %}…{% endgeneration %}`` marks the model's words, for training."""

    tags = {"generation"}  # noqa: RUF012  (as jinja2 declares it)

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("marked"), [], [], body).set_lineno(line)

    def marked(self, caller: Callable[[], str]) -> str:
        return f"{RESPONSE_BEGINS}{caller()}{RESPONSE_ENDS}"


class _Namespace(jinja2.utils.Namespace):
    """Holds no name with an underscore in front: those are Python's own."""

    def __init__(self, /, *given: Any, **names: Any) -> None:
        super().__init__()
        for name, value in dict(*given, **names).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace takes no name that begins with an underscore; got {name!r}")
        super().__setitem__(name, value)


class _Dict:
    """``dict``, without the class and what leads on from it."""

    fromkeys = staticmethod(dict.fromkeys)

    def __call__(self, *given: Any, **names: Any) -> dict[Any, Any]:
        return dict(*given, **names)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """With these options alone: `default` and `cls` would be called from outside the sandbox."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
