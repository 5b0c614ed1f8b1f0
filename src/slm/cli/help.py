"""`--help`, which the comments of a command's YAML say. Imports neither Hydra nor torch, so it answers at once."""

import re
import textwrap
from collections.abc import Sequence
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any

_WIDTH = 80  # of a terminal as it opens
_OFTEN_SET = "Often set:"  # behind it the keys of groups that the help shows
_SAY_NOTHING = ("", "null", "???", "{}", "[]")  # defaults, which a comment has words for
_ESCAPES = (
    "As in YAML, \\n and \\t in double quotes are a line's end and a tab (the shell needs quotes around them: "
    "key='\"a\\n\"'). Elsewhere, in a path and in a prompt a backslash is itself."
)
_MORE = [
    ("--explain [KEY …]", "show each value (below KEY) and the file or setting that set it"),
    ("--cfg job --resolve", "show the whole composed configuration"),
    ("--config-dir DIR", "a folder of your own groups and choices"),
    ("--hydra-help", "Hydra's own flags"),
]
_KEY = re.compile(
    r"""(?P<indent>\ *)(?P<name>[\w.-]+):
        (?:\s+(?P<value>"(?:[^"\\]|\\.)*"|'[^']*'|[^\s#][^#]*?))?
        (?:\s+\#\s*(?P<comment>.*))?\s*""",
    re.VERBOSE,
)


def render(config_name: str, config_dir: Path | None = None) -> str:
    """The whole help text of the command of that YAML; choices of groups include those in `config_dir`."""
    text = _read(config_name)
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
    head, _, often_set = "\n".join(re.sub("^# ?", "", line) for line in comment).partition(_OFTEN_SET)
    groups = _groups(text)
    settings = [(key, said) for key, said in meanings(text).items() if "." not in key]
    settings += [(key, _meaning_in_group(key, groups)) for key in often_set.split()]
    parts = list(map(_paragraph, head.strip().split("\n\n")))
    if groups:
        parts.append("groups (group=choice):\n" + _table([(g, ", ".join(choices(g, config_dir))) for g in groups]))
    parts.append("settings (key=value):\n" + _table(settings))
    parts.append(_filled(_ESCAPES))
    parts.append("more:\n" + _table(_MORE))
    return "\n\n".join(parts)


def groups_of(config_name: str) -> list[str]:
    """The groups that a command's YAML chooses from."""
    return list(_groups(_read(config_name)))


def choices(group: str, config_dir: Path | None = None) -> list[str]:
    """Names of the choices of a configuration group, sorted."""
    folders: list[Any] = [files("slm.conf").joinpath(group)]
    if config_dir is not None:
        folders.append(config_dir / group)
    found = {entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir()}
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def meanings(text: str) -> dict[str, str]:
    """Dotted key -> the comment beside it in a YAML file, with the default where that says something."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        if (key := _KEY.fullmatch(line)) is None or key["name"] == "defaults":
            continue
        indent = len(key["indent"])
        path = [(column, name) for column, name in path if column < indent] + [(indent, key["name"])]
        default, comment = key["value"] or "", key["comment"] or ""
        shows = default not in _SAY_NOTHING and "${" not in default
        found[".".join(name for _, name in path)] = f"{comment} (default {default})" if shows else comment
    return found


def _read(name: str) -> str:
    return files("slm.conf").joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def _groups(text: str) -> dict[str, str]:
    """Group -> its default choice, those of a YAML that it extends too."""
    extended = [name for name in re.findall(r"^  - (\w+)$", text, re.MULTILINE) if name != "_self_"]
    below = {group: choice for name in extended for group, choice in _groups(_read(name)).items()}
    return below | {
        group: choice for group, choice in re.findall(r"^  - (\w+): (\w+)", text, re.MULTILINE) if group != "hydra"
    }


def _meaning_in_group(key: str, groups: dict[str, str]) -> str:
    """Of a key below a group, as its default choice has it, or the first other one that has it."""
    group, _, inside = key.partition(".")
    for choice in (groups[group], *choices(group)):
        if choice != "null" and (said := meanings(_read(f"{group}/{choice}")).get(inside)):
            return said
    raise KeyError(f"no YAML of {group} has a comment beside {inside}")


def _paragraph(text: str) -> str:
    """As wide as the page, unless it is an indented list."""
    lines = text.splitlines()
    if any(line.startswith(" ") for line in lines):
        return text
    return _filled(" ".join(lines), "    " if text.startswith("usage:") else "")


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in rows) + 4
    wrapper = textwrap.TextWrapper(_WIDTH, subsequent_indent=" " * width, break_on_hyphens=False)
    lines = []
    for left, right in rows:
        wrapper.initial_indent = f"  {left}".ljust(width)
        lines.append(wrapper.fill(right))
    return "\n".join(lines)
