"""Plain dictionaries to typed settings, frozen dataclasses: pydantic checks, and every problem is told in our words."""

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AllowInfNan, ByteSize, ConfigDict, Strict, TypeAdapter, ValidationError

from slm.errors import UserError, did_you_mean, refuse, suggestion

T = TypeVar("T")

# Whole numbers fit into 64 bits, as torch's do; others are finite.
_MOST, _FINITE = 2**63 - 1, AllowInfNan(False)
Count = Annotated[int, Strict(), Gt(0), Le(_MOST)]
NonNegativeInt = Annotated[int, Strict(), Ge(0), Le(_MOST)]
Seed = Annotated[int, Strict(), Ge(0), Le(2**32 - 1)]  # as far as NumPy's go
Int = Annotated[int, Strict(), Ge(-_MOST), Le(_MOST)]
PositiveFloat = Annotated[float, Strict(), Gt(0), _FINITE]
NonNegativeFloat = Annotated[float, Strict(), Ge(0), _FINITE]
Probability = Annotated[float, Strict(), Ge(0), Lt(1), _FINITE]
Fraction = Annotated[float, Strict(), Ge(0), Le(1), _FINITE]
Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict()]

_AS_FLAG = {**dict.fromkeys(("yes", "on", "y", "t"), "true"), **dict.fromkeys(("no", "off", "n", "f"), "false")}
_UNION_BRANCHES = ("int", "float", "str", "bool", "none")
_adapter = functools.lru_cache(maxsize=64)(TypeAdapter)
FORBID_EXTRA = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


def checked(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` (and those nested in it) from plain types, as YAML or JSON give them. A nested class
    refuses unknown keys if it sets ``__pydantic_config__ = FORBID_EXTRA``. `where` is the dotted prefix of `values` in
    messages: `UserError` has a line for each key that is unknown, missing or has a wrong value."""
    if not isinstance(values, Mapping):
        raise UserError(f"{where or 'the configuration'} must be a mapping of settings; got {values!r}")
    try:
        return _adapter(cls).validate_python(dict(values))  # type: ignore[arg-type]  # a class can be hashed
    except ValidationError as error:
        lines = [_explain(cls, where, found) for found in error.errors()]
        raise UserError("\n".join(dict.fromkeys(lines))) from None


def checked_file(cls: type[T], values: Mapping[str, Any], file: object, mend: str) -> T:
    """The same of what our own `file` holds: `UserError` says the first thing that is wrong, and the `mend`."""
    try:
        return checked(cls, values)
    except UserError as error:
        found = str(error).splitlines()[0].partition(";")[0]  # not how a setting would be mended
        raise UserError(f"{file} is damaged ({found}); {mend}") from None


def bytes_of(value: object) -> int | None:
    """``24GiB``, ``8GB``, ``500 mb``, or a number of bytes; None of anything else, and of nothing at all."""
    try:
        return None if isinstance(value, bool) else int(_adapter(ByteSize).validate_python(value)) or None
    except ValidationError:
        return None


def together(*builds: Callable[[], Any]) -> list[Any]:
    """What each of `builds` returns; if any raises `UserError`, one with the lines of all that do."""
    results, problems = [], []
    for build in builds:
        try:
            results.append(build())
        except UserError as error:
            problems.append(str(error))
    refuse(problems)
    return results


def dotted(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key, value; of mappings too, ahead of what they hold."""
    for key, value in node.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")


def unknown_key(path: str, allowed: Iterable[str]) -> str:
    """The line that reports a key nobody reads, `path` being its full dotted name."""
    parent, _, key = path.rpartition(".")
    names = sorted(allowed)
    place = f"under '{parent}'" if parent else "at the top"
    return f"unknown key '{path}'{did_you_mean(key, names)} (allowed {place}: {', '.join(names) or 'nothing'})"


def _explain(cls: type, where: str, found: Any) -> str:
    location = [part for part in found["loc"] if part not in _UNION_BRANCHES and "[" not in str(part)]
    path = ".".join(filter(None, [where, *map(str, location)]))
    if found["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return unknown_key(path, _fields_at(cls, location[:-1]))
    if found["type"] == "missing":
        return f"{path} is missing; set it"
    if found["type"] == "value_error":
        message = found["msg"].removeprefix("Value error, ")
        return f"{path}: {message}" if path else message
    return f"{path} {_allowed(found)}; got {found['input']!r}{_meant(found)}"


def _allowed(found: Any) -> str:
    message: str = found["msg"].removeprefix("Input ")
    return message[0].lower() + message[1:]


def _meant(found: Any) -> str:
    value = found["input"]
    if isinstance(value, float) and found["type"] == "int_type" and value.is_integer():
        return suggestion([str(int(value))])
    if isinstance(value, str) and found["type"] == "bool_type" and value.lower() in _AS_FLAG:
        return suggestion([_AS_FLAG[value.lower()]])
    if found["type"] == "literal_error":
        return did_you_mean(str(value), re.findall(r"'([^']*)'", found["ctx"]["expected"]))
    return ""


def _fields_at(cls: type, location: list[Any]) -> list[str]:
    for part in location:
        hint = typing.get_type_hints(cls).get(part)
        nested = [option for option in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(option)]
        if not nested:
            return []
        cls = typing.cast(type, nested[0])
    return [field.name for field in dataclasses.fields(cls) if field.init]


def call_problems(function: Callable[..., Any], values: Mapping[str, Any], where: str, given: int = 0) -> list[str]:
    """What is wrong with `values`, called `where`, as keyword arguments of `function`: a line a problem. Annotations
    carry types and ranges; the program itself passes the first `given` arguments."""
    parameters = list(inspect.signature(function).parameters.values())[given:]
    hints = typing.get_type_hints(function, include_extras=True)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    problems = []
    for name, value in values.items():
        if name in named and name in hints:
            problems += value_problems(hints[name], value, f"{where}.{name}")
        elif name not in named and not takes_any:
            problems.append(unknown_key(f"{where}.{name}", named))
    missing = (p.name for p in named.values() if p.default is p.empty and p.name not in values)
    return [*problems, *(f"{where}.{name} is missing; set it" for name in missing)]


def value_problems(hint: Any, value: Any, path: str) -> list[str]:
    """The line that says what is wrong with `value` of the type `hint`, called `path`; none if it fits."""
    try:
        TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError as error:
        allowed = dict.fromkeys(map(_allowed, error.errors()))
        return [f"{path} {' or '.join(allowed)}; got {value!r}{_meant(error.errors()[0])}"]
    return []
