"""The command line: Hydra's flags and the settings, as one types them and as Hydra's grammar reads them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slm.errors import UserError

# Hydra's flags, of which it has no public list: those that take a value, one of these or (where there are none) any
_SHOWN, _INFO = ("job", "hydra", "all"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_FOLDER, _MULTIRUN = ("--config-dir", "-cd"), {"--multirun", "-m"}
_OTHERS = ("--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--experimental-rerun")
_TAKES = {"--cfg": _SHOWN, "-c": _SHOWN, "--info": _INFO, "-i": _INFO, **dict.fromkeys((*_FOLDER, *_OTHERS), ())}
_ALONE = {
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--shell-completion", "-sc"),
    *_MULTIRUN,
}

_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_ESCAPE = re.compile(r'\\([ntr\\"])')
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True)
class CommandLine:
    """The words of a command line, each in their order.

    Attributes:
        flags: Hydra's, as one word each: ``--cfg=job``.
        settings: all that does not begin with a dash.
        unknown: flags that do not exist, as they were typed and as the setting each looks like: ``--max-steps 9`` and
            ``max-steps=9``.
    """

    flags: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    unknown: list[tuple[str, str]] = field(default_factory=list)

    @property
    def known(self) -> list[str]:
        """Flags first: Hydra takes none between two settings."""
        return [*self.flags, *self.settings]

    @property
    def config_dir(self) -> Path | None:
        """The user's own folder of groups and choices."""
        given = [value for flag, _, value in (flag.partition("=") for flag in self.flags) if flag in _FOLDER]
        return Path(given[-1]) if given else None

    @property
    def is_multirun(self) -> bool:
        """Whether several values of a setting are a sweep."""
        return bool(_MULTIRUN & set(self.flags)) or "hydra.mode=MULTIRUN" in self.settings

    def has(self, *flags: str) -> bool:
        """Whether any of these was typed."""
        return any(flag.partition("=")[0] in flags for flag in self.flags)


def read(arguments: Sequence[str]) -> CommandLine:
    """Tell flags from settings.

    Raises:
        UserError: a flag has a wrong value; Hydra's own answer would be a page of usage.
    """
    line, left = CommandLine(), list(arguments)
    while left:
        word = left.pop(0)
        name, has_value, value = word.partition("=")
        name = _whole(name)
        if not word.startswith("-"):
            line.settings.append(word)
        elif name in _ALONE:
            line.flags.append(name)
        elif name in _TAKES:
            if not has_value and left and (_TAKES[name] != _INFO or left[0] in _INFO):
                value = left.pop(0)
            line.flags.append(f"{name}={_value(name, value)}")
        else:
            follows = not has_value and bool(left) and not left[0].startswith("-") and "=" not in left[0]
            typed = f"{word} {left[0]}" if follows else word
            value = left.pop(0) if follows else value if has_value else "true"
            line.unknown.append((typed, f"{name.lstrip('-')}={value}"))
    if line.has("--resolve") and not line.has("--cfg", "-c"):
        raise UserError("--resolve is read only with --cfg; type --cfg job --resolve")
    return line


def _whole(flag: str) -> str:
    """The flag that begins so, if there is one alone: ``--multi``."""
    known = [*_TAKES, *_ALONE]
    whole = [one for one in known if one.startswith(flag)] if flag.startswith("--") and flag not in known else []
    return whole[0] if len(whole) == 1 else flag


def _value(flag: str, value: str) -> str:
    allowed = _TAKES[flag]
    if allowed == _INFO and not value:
        return _INFO[0]
    if not value or (allowed and value not in allowed):
        raise UserError(f"{flag} takes {' | '.join(allowed) or 'a value'}; got '{value}'")
    return value


def quote(argument: str, literal: Collection[str], paths: Collection[str]) -> str:
    """`key=value` with the value quoted for Hydra's grammar, if its key is to be taken as typed."""
    key, separator, value = argument.partition("=")
    means_more = value == "null" or (value.startswith("[") and value.endswith("]"))
    name = key.lstrip("+")
    if separator and (name in literal or (name in paths and not means_more)):
        return f"{key}={quoted(value)}"
    return argument


def with_escapes(argument: str, as_they_are: Collection[str]) -> str:
    r"""`key=value` in Hydra's grammar, which takes ``"\n"`` for a backslash and an n, with what it means.

    The rule is YAML's: in double quotes ``\n``, ``\t``, ``\r``, ``\\`` and ``\"`` stand for a character,
    in single quotes and in none a backslash is itself. The values of the keys `as_they_are` have no escapes.
    """
    key, separator, value = argument.partition("=")
    if key.lstrip("+") in as_they_are:
        return argument
    return key + separator + _STRING.sub(_unescaped, value)


def _unescaped(found: re.Match[str]) -> str:
    """A double-quoted string as a single-quoted one; what has an interpolation is left to Hydra."""
    inside = found[1]
    if inside is None or "\\" not in inside or "${" in inside:
        return found[0]
    return _single_quoted(_ESCAPE.sub(lambda one: _ESCAPED.get(one[1], one[1]), inside))


def as_typed(overrides: Sequence[str], keys: Collection[str]) -> list[str]:
    """Overrides in Hydra's grammar with the text values of `keys` as one types them: no quotes, no escapes."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    typed = []
    for override in overrides:
        key = override.partition("=")[0]
        value = parser.parse_override(override).value() if key.lstrip("+") in keys else None
        typed.append(f"{key}={_without_escapes(value)}" if isinstance(value, str) else override)
    return typed


def _without_escapes(value: str) -> str:
    """A string as OmegaConf reads it, interpolations left as they are."""
    return re.sub(r"((?:\\\\)*)\\\$\{", lambda found: "\\" * (len(found[1]) // 2) + "${", value)


def quoted(value: str) -> str:
    """`value` as a single-quoted string of Hydra's override grammar that means exactly `value`."""
    # for OmegaConf "${" begins an interpolation unless an odd number of backslashes stands before it
    return _single_quoted(re.sub(r"(\\*)\$\{", r"\1\1\\${", value))


def _single_quoted(text: str) -> str:
    """`text` in Hydra's single quotes, interpolations and all."""
    # backslashes are literal unless a quote follows; then each must be doubled
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text) + "'"
