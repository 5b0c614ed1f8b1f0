"""All that is wrong with a command line, a line each, where Hydra stops at the first.

What is wrong is put as it was probably meant, or left out, so that the rest can be composed and checked as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from slm.cli.app import App
from slm.cli.compose_errors import could_not_override, explain
from slm.cli.composition import compose, config_loader, without_hydra
from slm.cli.nearest_setting import Vocabulary, nearest_choices, nearest_settings
from slm.errors import UserError, suggestion
from slm.suggest.other_names import NOT_HERE
from slm.training.config import no_setting

_TEXTS = ("prompt",)


@dataclass
class _Typed:
    """A setting of the command line.

    Attributes:
        text: as Hydra reads it.
        flag: it was typed with dashes before it, in these words.
        instead: what to go on with in its place.
        problem: the line about it.
    """

    text: str
    flag: str | None = None
    instead: list[str] = field(default_factory=list)
    problem: str | None = None

    def refuse(self, problem: str, instead: Sequence[str] = ()) -> None:
        lines = [*(self.problem or "").splitlines(), *problem.splitlines()]  # of a sweep each value has its say
        self.problem, self.instead = "\n".join(dict.fromkeys(lines)), list(instead)


def find_mistakes(
    app: App,
    settings: Sequence[str],
    flags: Sequence[tuple[str, str]] = (),
    config_dir: Path | None = None,
    multirun: bool = False,
) -> list[str]:
    """A line for each mistake, in the order in which they were typed, then those that the values make together.

    Args:
        app: the command.
        settings: as Hydra reads them.
        flags: unknown ones, as they were typed and as the setting each looks like.
        config_dir: the user's own choices.
        multirun: whether several values of a setting are a sweep.
    """
    typed = [*(_Typed(text, flag, [text]) for flag, text in flags), *(_Typed(text, None, [text]) for text in settings)]
    loader = config_loader(config_dir)
    choices = {group: loader.get_group_options(group) for group in app.help_text.groups}
    parsed = [(one, override) for one in typed for override in _parsed(one, multirun)]
    groups = [(one, override) for one, override in parsed if override.key_or_group in choices]
    for one, override in groups:
        _check_choice(one, override, choices)
    chosen, _ = _composed(loader, app.config_name, [text for one, _ in groups for text in one.instead])
    known = vocabulary(chosen if chosen is not None else OmegaConf.create(), choices)
    for one, override in parsed:
        if isinstance(override.value(), dict) and override.key_or_group in known.keys:
            _check_mapping(one, override, known)
        elif override.key_or_group not in choices:
            _check_key(one, override, known)
    for place, one in enumerate(typed):
        if one.problem and "=" not in one.text:
            _suggest_for_no_setting(one, typed[place - 1] if place else None, typed[place + 1 : place + 2], known)
    lines = [one.problem for one in typed if one.problem]
    put = [text for one in typed for text in one.instead]
    if lines and not any(text.startswith("resume=") for text in put):
        put = app.rewrite(put)  # what was meant may imply more than what was typed
    cfg, problems = _composed(loader, app.config_name, put)
    return list(dict.fromkeys([*lines, *problems, *(_refused(app, cfg, known) if cfg is not None else [])]))


def _refused(app: App, cfg: DictConfig, known: Vocabulary) -> list[str]:
    """What the command says of the values, with a wider look for what an unknown key may have meant."""
    if OmegaConf.select(cfg, "model.weights", throw_on_missing=False):
        return []  # to look at them may take a download, and torch
    try:
        app.check(without_hydra(cfg))
    except UserError as error:
        return [with_suggestion(line, known) for line in str(error).splitlines()]
    except OmegaConfBaseException as error:
        return [explain(error) or str(error)]
    return []


def with_suggestion(line: str, known: Vocabulary) -> str:
    """The line that `slm.schema.unknown_key` wrote, of a key added by ``+``: it knows that key's neighbours alone."""
    start, key, rest = line[:13], *(line[13:].partition("'")[::2] if line.startswith("unknown key '") else ("", ""))
    if not key or "did you mean" in rest:
        return line
    return f"{start}{key}'{suggestion(nearest_settings(key, '', known))}{rest}"


def vocabulary(cfg: DictConfig, choices: dict[str, list[str]]) -> Vocabulary:
    """What can be set of a composed configuration."""
    values: Any = OmegaConf.to_container(cfg, resolve=False)
    return Vocabulary.of({key: value for key, value in values.items() if key != "hydra"}, choices)


def _parsed(one: _Typed, multirun: bool) -> list[Override]:
    """`one` as Hydra parses it, of a sweep over choices each value; none, and the problem noted, if it cannot be."""
    try:
        override = OverridesParser.create().parse_overrides([one.text])[0]
    except (OverrideParseException, HydraException) as error:
        one.refuse(explain(error) or str(error))
        return []
    if override.is_sweep_override():
        if not multirun:
            one.refuse(
                f"'{one.text}' is several values; to sweep over them add --multirun; a list is "
                f"{override.get_key_element()}=[…], a text with commas is quoted twice: '\"a,b\"'"
            )
            return []
        texts = [f"{override.get_key_element()}={value}" for value in _swept(override)]
        one.instead = texts[:1]
        return OverridesParser.create().parse_overrides(texts)
    return [override]


def _swept(override: Override) -> list[str]:
    """All values of a sweep over choices, the first of a range or an interval."""
    if override.is_interval_sweep():
        return [str(cast(IntervalSweep, override.value()).start)]
    values = override.sweep_string_iterator()
    return list(values if override.is_choice_sweep() else islice(values, 1))


def _check_choice(one: _Typed, override: Override, choices: dict[str, list[str]]) -> None:
    group, value = override.key_or_group, override.value()
    wanted = value if isinstance(value, list) else [value]
    lines, instead = [], list[str]()
    if override.is_delete() or isinstance(value, dict):
        return
    for choice in wanted:
        if isinstance(choice, str) and choice in choices[group]:
            instead.append(choice)
            continue
        if not isinstance(choice, str):
            said = "null" if choice is None else choice
            one.refuse(f"{group}={said}: a group takes the name of one of its choices ({', '.join(choices[group])})")
            return
        meant = nearest_choices(group, choice, choices[group])
        lines.append(f"{group} has no choice '{choice}'{suggestion(meant)} (choices: {', '.join(choices[group])})")
        if meant and "=" in meant[0]:
            one.refuse(lines[-1], meant[0].split(" ", 1))
            return
        instead += meant[:1]
    text = f"[{','.join(instead)}]" if isinstance(value, list) else "".join(instead)
    setting = f"{override.get_key_element()}={text}"
    if one.flag:
        one.refuse(_flag_line(one.flag, [setting]), [setting])
    elif lines:
        one.refuse("\n".join(lines), [setting] if text else [])


def _check_key(one: _Typed, override: Override, known: Vocabulary) -> None:
    """Note what is wrong with a key that is in no config; one that is added is for the check of values."""
    key = override.key_or_group
    value = None if override.is_delete() else str(override.input_line).partition("=")[2]
    if key.partition("/")[0].partition(".")[0] == "hydra" or (override.is_add() or override.is_force_add()):
        return
    if key in known.keys:
        if one.flag:
            one.refuse(_flag_line(one.flag, [one.text]), one.instead)
        elif isinstance(known.keys[key], dict) and not isinstance(override.value(), dict) and value is not None:
            _refuse_value_of_mapping(one, key, value, known)
        return
    if (line := no_setting(key)) and not one.flag:
        one.refuse(line)
        return
    if key in NOT_HERE:
        one.refuse(f"unknown key '{key}': {NOT_HERE[key]}")
        return
    meant = nearest_settings(key, value, known)
    settings = [setting if "=" in setting or value is None else f"{setting}={value}" for setting in meant]
    if one.flag:
        one.refuse(_flag_line(one.flag, settings), settings[:1])
    else:
        one.refuse(_unknown_key_line(key, meant, known), [] if override.is_delete() else settings[:1])


def _check_mapping(one: _Typed, override: Override, known: Vocabulary) -> None:
    """``trainer={max_steps: 3}``: its keys are looked at one by one."""
    values: Any = override.value()
    keys = [f"{override.key_or_group}.{name}" for name in values]
    wrong = [key for key in keys if key not in known.keys] if not one.text.startswith("+") else []
    if wrong and known.keys[override.key_or_group]:
        meant = {key: nearest_settings(key, "", known) for key in wrong}
        one.refuse("\n".join(_unknown_key_line(key, meant[key], known) for key in wrong))


def _unknown_key_line(key: str, meant: Sequence[str], known: Vocabulary) -> str:
    section = key.rpartition(".")[0]
    beside = known.below(section) if section else []
    return f"unknown key '{key}'{suggestion(meant)}" + (f" (under '{section}': {', '.join(beside)})" if beside else "")


def _flag_line(flag: str, meant: Sequence[str]) -> str:
    return f"unrecognized arguments: {flag}; settings are typed without dashes, key=value{suggestion(meant)}"


def _refuse_value_of_mapping(one: _Typed, key: str, value: str, known: Vocabulary) -> None:
    below = known.below(key)
    shown = f"; set one of its keys: {', '.join(f'{key}.{name}' for name in below)}" if below else ""
    one.refuse(f"'{key}' is a group of settings and takes no value; got '{value}'{shown}")


def _suggest_for_no_setting(one: _Typed, before: _Typed | None, after: Sequence[_Typed], known: Vocabulary) -> None:
    """``lr:3e-4``, ``lr 3e-4``, a path, a text without its quotes, ``help``."""
    key, colon, value = one.text.partition(":")
    meant = [key] if key in known.keys else nearest_settings(key, value or None, known)
    if one.text.strip("-?") in ("help", "h", ""):
        one.problem = f"{one.problem}{suggestion(['--help'])}"
    elif colon and meant:
        one.problem = f"{one.problem}{suggestion([f'{name}={value}' for name in meant])}"
    elif key in known.keys and after and after[0].problem and "=" not in after[0].text:
        one.problem = f"{one.problem}{suggestion([f'{key}={after[0].text}'])}"
    elif "run" in known.keys and (Path(one.text).exists() or "/" in one.text):
        one.problem = f"{one.problem}{suggestion([f'run={one.text}'])}"
    elif before is not None and before.text.partition("=")[0] in _TEXTS:
        shown = before.text.replace("'", "")
        one.problem = f"{one.problem}; a text with spaces is typed in quotes: '{shown} {one.text} …'"


def _composed(
    loader: ConfigLoaderImpl, config_name: str, overrides: Sequence[str]
) -> tuple[DictConfig | None, list[str]]:
    """The configuration without those overrides that Hydra refuses, and a line for each of those."""
    left = list(overrides)
    problems: list[str] = []
    while True:
        try:
            return compose(loader, config_name, left), problems
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            culprit = next((text for text in left if _is_about(error, text)), None)
            problems.append(could_not_override(error, culprit) or explain(error) or " ".join(str(error).split()))
            if culprit is None:
                return None, problems
            left.remove(culprit)


def _is_about(error: Exception, override: str) -> bool:
    key = override.partition("=")[0].lstrip("+~")
    cause = f"{error}\n{error.__cause__ or ''}"
    return override in cause or f"'{key}'" in cause or f"full_key: {key}\n" in f"{cause}\n"
