"""`--explain`: for each value of the configuration, what set it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from slm.cli.composition import config_loader
from slm.cli.origins import Leaf, leaves_of
from slm.errors import UserError, did_you_mean

_WIDTH = 100
_WIDEST_VALUE = 28  # a longer one has a line of its own


def explanation(
    config_name: str,
    settings: Sequence[str],
    typed: Collection[str],
    only: Sequence[str] = (),
    config_dir: Path | None = None,
) -> str:
    """A table of keys, values and what set them, by the mapping they stand in.

    Args:
        config_name: the command's primary config.
        settings: the whole command line, as Hydra reads it.
        typed: those of them that the user typed; the others follow from these.
        only: keys or their beginnings; none for all.
        config_dir: the user's own choices.

    Raises:
        UserError: no key begins like one of `only`.
    """
    leaves = leaves_of(config_loader(config_dir), config_name, settings)
    for key in only:
        if not any(_is_below(leaf.key, key) for leaf in leaves):
            known = {part for leaf in leaves for part in _with_parents(leaf.key)}
            raise UserError(f"there is no setting '{key}' to explain{did_you_mean(key, known)}")
    shown = [leaf for leaf in leaves if not only or any(_is_below(leaf.key, key) for key in only)]
    by_key = {leaf.key: leaf for leaf in leaves}
    rows = [(leaf.key, shown_value(leaf.value), _source(leaf, by_key, typed)) for leaf in shown]
    return "\n".join(_lines(rows))


def shown_value(value: Any) -> str:
    """A value as one would type it; text that could be taken for something else in double quotes."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, default=str)
    plain = value.isprintable() and value == value.strip() and value not in ("", "null", "true", "false")
    return value if plain and not value.replace(".", "").isdigit() else json.dumps(value, ensure_ascii=False)


def _source(leaf: Leaf, by_key: dict[str, Leaf], typed: Collection[str]) -> str:
    said = str(leaf.origin)
    if leaf.origin.setting is not None:
        said = f"{'command line' if leaf.origin.setting in typed else 'implied'}: {said}"
    taken = [f"{key} ({by_key[key].origin})" for key in leaf.refers_to() if key in by_key]
    if taken:
        return f"{said} <- {', '.join(taken)}"
    return f"{said} (must be set)" if leaf.value == "???" else said


def _lines(rows: Sequence[tuple[str, str, str]]) -> Iterable[str]:
    names = max(len(key.rpartition(".")[2]) for key, _, _ in rows) + 4
    values = max((len(value) for _, value, _ in rows if len(value) <= _WIDEST_VALUE), default=0) + 2
    section = ""
    for key, value, source in rows:
        place, _, name = key.rpartition(".")
        if place != section:
            yield place or "(top)"
            section = place
        indent = "  " if place else ""
        begin = f"{indent}{name}".ljust(names)
        if len(value) > _WIDEST_VALUE:
            yield f"{begin}{value}"
            begin, value = "", ""
        line = f"{begin.ljust(names)}{value.ljust(values)}{source}"
        if len(line) > _WIDTH and " <- " in source:
            said, _, taken = source.partition(" <- ")
            yield f"{begin.ljust(names)}{value.ljust(values)}{said}"
            line = f"<- {taken}".rjust(min(_WIDTH, names + values + len(taken) + 3))
        yield line


def _is_below(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith(f"{prefix}.")


def _with_parents(key: str) -> Iterable[str]:
    parts = key.split(".")
    return (".".join(parts[: n + 1]) for n in range(len(parts)))
