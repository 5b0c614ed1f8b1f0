"""All that is wrong with a command line, a line each, found before Hydra composes, which would stop at the first."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from slm.cli.command import Command, CommandLine
from slm.cli.composition import OF_HYDRA, PLUGIN, Composition, explain
from slm.cli.help import choices, groups_of
from slm.cli.nearest_setting import Vocabulary, nearest_choices, nearest_settings
from slm.errors import UserError, suggestion
from slm.schema import dotted
from slm.suggest.nearest import meant as called_here
from slm.suggest.nearest import not_here
from slm.training.config import no_setting

_UNKNOWN_KEY = re.compile(r"^unknown key '([^']+)'(?!; did you mean)", re.MULTILINE)


@dataclass
class _Typed:
    text: str  # as Hydra reads it
    flag: str | None  # it was typed with dashes before it, in these words
    instead: list[str]  # what to go on with in its place
    problem: str = ""  # the line about it

    @property
    def key(self) -> str:
        return self.text.partition("=")[0]

    def refuse(self, problem: str, instead: Sequence[str] = ()) -> None:
        if self.flag and not (problem and not_here(self.key)):  # what a command has is here, whatever others lack
            meant = suggestion(list(instead))
            problem = f"unrecognized arguments: {self.flag}; settings are typed without dashes, key=value{meant}"
        lines = [*self.problem.splitlines(), *problem.splitlines()]  # each value of a sweep has its say
        self.problem, self.instead = "\n".join(dict.fromkeys(lines)), list(instead)


def find_mistakes(command: Command, line: CommandLine) -> list[str]:
    """A line for each mistake, in the order in which they were typed; if there are any, also for the values. What is
    wrong is put as it was probably meant, or left out, so that these can be checked."""
    composition = Composition(command.config_name, line.config_dir)
    words = [*line.unknown, *((None, text) for text in command.quoted(line))]
    typed = [_Typed(text, flag, [text]) for flag, text in words]
    known = _check(typed, command, composition, line.is_multirun)
    lines = [one.problem for one in typed if one.problem]
    if not lines:
        return []
    meant = [text for one in typed for text in one.instead]
    if not any(text.startswith("resume=") for text in meant):
        meant = command.rewrite(meant)  # what was meant may imply more than what was typed
    return list(dict.fromkeys([*lines, *_refused(command, composition, meant, known)]))


def _check(typed: Sequence[_Typed], command: Command, composition: Composition, multirun: bool) -> Vocabulary:
    """What there is to set, with the choices that were meant; what is wrong with each is noted."""
    parser = OverridesParser.create(config_loader=composition.loader)
    parsed = [(one, override) for one in typed for override in _parsed(one, parser, multirun)]
    groups = _groups(command, composition, [override for _, override in parsed])
    chosen = [(one, override) for one, override in parsed if _is_choice(override, groups)]
    for one, override in chosen:
        _check_choice(one, override, groups[override.key_or_group])
    known = _vocabulary(composition, [text for one, _ in chosen for text in one.instead], groups)
    for one, override in parsed if known.keys else []:
        if not _is_choice(override, groups):
            _check_key(one, override, known)
    for place, one in enumerate(typed):
        if one.flag and not one.problem:
            one.refuse("", one.instead)
        if one.problem and "=" not in one.text:
            _suggest_for_no_setting(one, typed[place - 1] if place else None, typed[place + 1 : place + 2], known)
    return known


def with_suggestions(command: Command, message: str, cfg: DictConfig) -> str:
    """The message of a check of values, which knows a key's neighbours alone, with the nearest settings anywhere."""
    values: Any = OmegaConf.to_container(cfg, resolve=False)
    groups = {group: choices(group) for group in groups_of(command.config_name)}
    return _with_nearest(message, Vocabulary(dict(dotted(values)), groups))


def _with_nearest(message: str, known: Vocabulary) -> str:
    return _UNKNOWN_KEY.sub(lambda found: found[0] + suggestion(nearest_settings(found[1], "", known)), message)


def _parsed(one: _Typed, parser: OverridesParser, multirun: bool) -> list[Override]:
    """`one` as Hydra parses it, of a sweep over choices each value; none, and the problem noted, if it cannot be."""
    try:
        override = parser.parse_overrides([one.text])[0]
    except HydraException as error:
        one.refuse(explain(error) or str(error))
        return []
    if not override.is_sweep_override():
        return [override]
    key = override.get_key_element()
    if not multirun:
        one.refuse(
            f"'{one.text}' is several values; to sweep over them add --multirun; a list is {key}=[…], a text with "
            "commas is quoted twice: '\"a,b\"'"
        )
        return []
    if override.is_interval_sweep():
        values = [str(cast(IntervalSweep, override.value()).start)]
    else:
        values = list(islice(override.sweep_string_iterator(), None if override.is_choice_sweep() else 1))
    texts = [f"{key}={value}" for value in values]
    one.instead = texts[:1]
    return parser.parse_overrides(texts)


def _groups(command: Command, composition: Composition, overrides: Sequence[Override]) -> dict[str, list[str]]:
    keys = {override.key_or_group for override in overrides}
    others = [key for key in keys if not key.startswith("hydra") and not choices(key)]
    found = {group: composition.options(group) for group in [*groups_of(command.config_name), *others]}
    return {group: names for group, names in found.items() if names}


def _is_choice(override: Override, groups: Mapping[str, Sequence[str]]) -> bool:
    return override.key_or_group in groups and not isinstance(override.value(), dict)


def _vocabulary(composition: Composition, chosen: Sequence[str], groups: Mapping[str, Sequence[str]]) -> Vocabulary:
    """What can be set with these choices; no keys where that is for Hydra alone to know, or to complain of."""
    try:
        layers = composition.layers(list(dict.fromkeys(chosen)))
        merged: Any = OmegaConf.to_container(OmegaConf.merge(*(layer.content for layer in layers)))
    except OF_HYDRA:
        return Vocabulary({}, groups)
    return Vocabulary(dict(dotted({} if PLUGIN in layers else merged)), groups)


def _check_choice(one: _Typed, override: Override, names: Sequence[str]) -> None:
    group, value = override.key_or_group, override.value()
    wanted = value if isinstance(value, list) else [value]
    if override.is_delete() or all(choice in names for choice in wanted):
        return
    problems, instead = [], list[str]()
    for choice in wanted:
        if not isinstance(choice, str):
            said = "null" if choice is None else choice
            one.refuse(f"{group}={said}: a group takes the name of one of its choices ({', '.join(names)})")
            return
        nearest = [str(choice)] if choice in names else nearest_choices(group, choice, names)
        instead += nearest[:1]
        if choice not in names:
            told = f": {said}" if (said := not_here(choice)) else suggestion(nearest)
            problems.append(f"{group} has no choice '{choice}'{told} (choices: {', '.join(names)})")
    put = f"[{','.join(instead)}]" if isinstance(value, list) else "".join(instead)
    if "=" not in put and instead:  # else settings in the place of a file or a model
        put = f"{override.get_key_element()}={put}"
    one.refuse("\n".join(problems), put.split(" ", 1) if instead else [])


def _check_key(one: _Typed, override: Override, known: Vocabulary) -> None:
    key = override.key_or_group
    value = None if override.is_delete() else str(override.input_line).partition("=")[2]
    if override.is_hydra_override() or override.package is not None:
        return
    if override.is_add() or override.is_force_add():  # for the check of values
        known.add(key, override.value())
    elif key in known.keys:
        _check_value(one, override, known)
        if said := [setting for setting in called_here(f"{key}={value}") if setting.startswith(f"{key}=")]:
            one.refuse(f"'{key}={value}' is other tools'{suggestion(said)}", said[:1])
    elif line := no_setting(key):
        one.refuse(line)
    elif told := not_here(key):
        one.refuse(f"unknown key '{key}': {told}")
    elif not known.may_hold(key):
        unquoted = override.value()
        nearest = nearest_settings(key, unquoted if isinstance(unquoted, str) else value, known)
        settings = [setting if "=" in setting or value is None else f"{setting}={value}" for setting in nearest]
        instead = [] if override.is_delete() else settings[:1]
        if instead and " " in instead[0]:  # a choice, and the key that it has
            choice, _, _ = instead[0].partition(" ")
            instead = [choice, one.text]
        one.refuse(_unknown_key_line(key, nearest, known), instead)


def _check_value(one: _Typed, override: Override, known: Vocabulary) -> None:
    """A mapping's value is a mapping, ``trainer={max_steps: 3}``, with keys that there are."""
    key, value = override.key_or_group, override.value()
    if isinstance(value, dict):
        wrong = [f"{key}.{name}" for name in value if f"{key}.{name}" not in known.keys]
        if wrong and isinstance(known.keys[key], dict):
            one.refuse("\n".join(_unknown_key_line(name, nearest_settings(name, "", known), known) for name in wrong))
    elif isinstance(known.keys[key], dict) and not override.is_delete():
        below = ", ".join(f"{key}.{name}" for name in known.below(key))
        shown = f"; set one of its keys: {below}" if below else ""
        typed = str(override.input_line).partition("=")[2]
        one.refuse(f"'{key}' is a group of settings and takes no value; got '{typed}'{shown}")


def _unknown_key_line(key: str, meant: Sequence[str], known: Vocabulary) -> str:
    section = key.rpartition(".")[0]
    beside = known.below(section) if section else []
    return f"unknown key '{key}'{suggestion(meant)}" + (f" (under '{section}': {', '.join(beside)})" if beside else "")


def _suggest_for_no_setting(one: _Typed, before: _Typed | None, after: Sequence[_Typed], known: Vocabulary) -> None:
    """``lr:3e-4``, ``lr 3e-4``, a path, a text without its quotes, ``help``."""
    key, colon, value = one.text.partition(":")
    meant = [key] if key in known.keys else nearest_settings(key, value or None, known)
    if one.text.strip("-?") in ("help", "h", ""):
        one.problem += suggestion(["--help"])
    elif colon and meant:
        one.problem += suggestion([f"{name}={value}" for name in meant])
    elif key in known.keys and after and after[0].problem and "=" not in after[0].text:
        one.problem += suggestion([f"{key}={after[0].text}"])
    elif "run" in known.keys and (Path(one.text).exists() or "/" in one.text):
        one.problem += suggestion([f"run={one.text}"])
    elif before is not None and before.key == "prompt":
        shown = before.text.replace("'", "")
        one.problem += f"; a text with spaces is typed in quotes: '{shown} {one.text} …'"


def _refused(command: Command, composition: Composition, settings: Sequence[str], known: Vocabulary) -> list[str]:
    try:
        cfg = composition.composed(settings)
        if not OmegaConf.select(cfg, "model.weights", throw_on_missing=False):  # to look at them may take a download
            command.checked(cfg)
    except UserError as error:
        return _with_nearest(str(error), known).splitlines()
    except OF_HYDRA as error:
        return [explain(error) or " ".join(str(error).split())]
    return []
