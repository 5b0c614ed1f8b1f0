"""A command, and the words of its command line: as one types them, and as Hydra's grammar reads them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.cli.result import Result, asks_for_json
from slm.errors import UserError, refuse

if TYPE_CHECKING:
    from omegaconf import DictConfig

BUG_STATUS = 1
USER_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130
STOPPED_STATUS = 75  # EX_TEMPFAIL: the same again goes on

# Hydra's flags, of which it has no public list: those that take a value, one of these or (where there are none) any
_SHOWN, _INFO = ("job", "hydra", "all"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_FOLDER, _MULTIRUN = ("--config-dir", "-cd"), {"--multirun", "-m"}
_OTHERS = ("--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--experimental-rerun")
_TAKES = {"--cfg": _SHOWN, "-c": _SHOWN, "--info": _INFO, "-i": _INFO, **dict.fromkeys((*_FOLDER, *_OTHERS), ())}
_OF_NO_VALUE = ("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--shell-completion", "-sc")
_ALONE = {*_OF_NO_VALUE, *_MULTIRUN}

_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_ESCAPE = re.compile(r'\\([ntr\\"])')
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True)
class CommandLine:
    """The words of a command line, each in their order."""

    flags: list[str] = field(default_factory=list)  # Hydra's, as one word each: ``--cfg=job``
    settings: list[str] = field(default_factory=list)  # all that does not begin with a dash
    # flags that do not exist, as they were typed and as the setting each looks like: ``--seed 9`` and ``seed=9``
    unknown: list[tuple[str, str]] = field(default_factory=list)

    @property
    def known(self) -> list[str]:
        """Flags first: Hydra takes none between two settings."""
        return [*self.flags, *self.settings]

    @property
    def config_dir(self) -> Path | None:
        given = [value for flag, _, value in (flag.partition("=") for flag in self.flags) if flag in _FOLDER]
        return Path(given[-1]) if given else None

    @property
    def is_multirun(self) -> bool:
        return bool(_MULTIRUN & set(self.flags)) or "hydra.mode=MULTIRUN" in self.settings

    def has(self, *flags: str) -> bool:
        return any(flag.partition("=")[0] in flags for flag in self.flags)


@dataclass(frozen=True)
class Command:
    """A command."""

    config_name: str  # its primary config, whose comments are its ``--help``
    task: Callable[[dict[str, Any], Any], Any]  # of the settings, and what `check` made of them
    check: Callable[[dict[str, Any]], Any]  # types them; raises `UserError` for what the task would refuse
    rewrite: Callable[[list[str]], list[str]] = list  # the command line, flags first, as Hydra is to get it
    place: Callable[[DictConfig], None] = lambda cfg: None  # notes in the configuration where Hydra put the job
    # keys whose values need no quotes for Hydra: taken as they are typed (but for a multirun, where a comma sweeps)
    literal: Collection[str] = ()
    paths: Collection[str] = ()  # the same, but ``null`` and a list, ``[a,b]``, keep their meaning

    def checked(self, cfg: DictConfig) -> tuple[dict[str, Any], Any]:
        """The settings, resolved and plain, and what `check` makes of them; `UserError` with all that is wrong."""
        from omegaconf import OmegaConf

        from slm.schema import Flag, value_problems

        no_model = {} if "model" in cfg else {"model": {"params": {"max_seq_len": None}}}  # windows of data name it
        whole = OmegaConf.merge(no_model, cfg)
        missing = sorted(key for key in OmegaConf.missing_keys(whole) if not key.startswith("hydra."))
        resolved = _present(OmegaConf.to_container(whole, resolve=True))
        values = {key: value for key, value in resolved.items() if key not in no_model}
        problems = [f"{key} is missing; set it: {key}=…" for key in missing]
        as_json = values.pop("json", False)  # of all commands, so none checks it
        problems += value_problems(Flag, as_json, "json")
        try:
            settings = self.check(values)
        except UserError as error:
            lines = str(error).splitlines()
            problems += [line for line in lines if not line.startswith(tuple(f"{key} is missing" for key in missing))]
        refuse(problems)
        return {**values, "json": as_json}, settings

    def quoted(self, line: CommandLine) -> list[str]:
        """The settings of a command line in Hydra's grammar."""
        meant = [with_escapes(setting, {*self.literal, *self.paths}) for setting in line.settings]
        return meant if line.is_multirun else [self._quoted(setting) for setting in meant]

    def _quoted(self, setting: str) -> str:
        key, separator, value = setting.partition("=")
        name, means_more = key.lstrip("+"), value == "null" or (value.startswith("[") and value.endswith("]"))
        as_typed = name in self.literal or (name in self.paths and not means_more)
        return f"{key}={quoted(value)}" if separator and as_typed else setting


def _present(values: Any) -> Any:
    """Nested mappings without the keys that are missing; those in a list stay."""
    if not isinstance(values, dict):
        return values
    return {key: _present(value) for key, value in values.items() if value != "???"}


def fail(message: str, status: int = USER_ERROR_STATUS, **facts: Any) -> None:
    """Say on stderr what went wrong with this command, and on stdout, with `facts`, where JSON was asked for; exit."""
    name = Path(sys.argv[0]).name
    print("\n".join(f"{name}: {line}" for line in message.splitlines()), file=sys.stderr, flush=True)
    print_failure(message, status, **facts)
    sys.exit(status)


def print_failure(message: str, status: int, **facts: Any) -> None:
    """One JSON object on stdout, if that was asked for."""
    if asks_for_json(sys.argv[1:]):
        print(Result({"error": message, "status": status, **facts}).text(as_json=True), flush=True)


def read(arguments: Sequence[str]) -> CommandLine:
    """Tell flags from settings; `UserError` for a flag with a wrong value, where Hydra gives a page of usage."""
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


def with_escapes(argument: str, as_they_are: Collection[str]) -> str:
    r"""`key=value` in Hydra's grammar, which takes ``"\n"`` for a backslash and an n, with what it means in YAML: in
    double quotes ``\n``, ``\t``, ``\r``, ``\\`` and ``\"`` stand for a character, in single quotes and in none a
    backslash is itself. The values of the keys `as_they_are` have no escapes."""
    key, separator, value = argument.partition("=")
    return argument if key.lstrip("+") in as_they_are else key + separator + _STRING.sub(_unescaped, value)


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
    # backslashes are literal unless a quote follows; then each must be doubled
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text) + "'"
