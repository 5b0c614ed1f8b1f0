"""`--explain`: for each value of the configuration, what set it, a file or a setting of the command line."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from slm.cli.composition import PLUGIN, Composition, Layer
from slm.errors import UserError, did_you_mean
from slm.schema import dotted

_REFERENCE = re.compile(r"\$\{([^{}:$]+)\}")
_WIDTH = 100
_WIDEST_VALUE = 28  # a longer one has a line of its own


@dataclass(frozen=True)
class Leaf:
    """A value of the configuration."""

    key: str  # dotted
    value: Any  # resolved
    written: Any  # as it stands where it was set, interpolations unresolved
    origin: Layer  # what set it

    def is_below(self, prefix: str) -> bool:
        """Whether it is the setting of that key, or one of its mapping."""
        return f"{self.key}.".startswith(f"{prefix}.")


def explanation(composition: Composition, settings: Sequence[str], typed: Collection[str], only: Sequence[str]) -> str:
    """A table of keys, values and what set them: of the keys that begin like one of `only`, which must exist, or all.
    Those of the `settings`, as Hydra reads them, that the user has not `typed` follow from the rest."""
    leaves = leaves_of(composition, settings)
    for key in only:
        if not any(leaf.is_below(key) for leaf in leaves):
            parts = [leaf.key.split(".") for leaf in leaves]
            known = {".".join(names[: n + 1]) for names in parts for n in range(len(names))}
            raise UserError(f"there is no setting '{key}' to explain{did_you_mean(key, known)}")
    by_key = {leaf.key: leaf for leaf in leaves}
    shown = [leaf for leaf in leaves if not only or any(leaf.is_below(key) for key in only)]
    return "\n".join(_lines([(leaf.key, _shown(leaf.value), _source(leaf, by_key, typed)) for leaf in shown]))


def leaves_of(composition: Composition, settings: Sequence[str]) -> list[Leaf]:
    """Every value of the configuration, in its order; an empty mapping is a value too. Raises what Hydra does."""
    cfg = composition.composed(settings)
    origins = _origins(composition.layers(settings))
    written: Any = OmegaConf.to_container(cfg, resolve=False)
    leaves = [(key, value) for key, value in dotted(written) if not (isinstance(value, Mapping) and value)]
    return [Leaf(key, _resolved(cfg, key, value), value, origins.get(key, PLUGIN)) for key, value in leaves]


def _origins(layers: Sequence[Layer]) -> dict[str, Layer]:
    """Key of a leaf -> the last to say it; what stood below a mapping that was replaced is forgotten."""
    found: dict[str, Layer] = {}
    for layer in layers:
        for key, value in dotted(layer.content):
            below = [other for other in found if other.startswith(f"{key}.")]
            if isinstance(value, Mapping) and (value or below):
                found.pop(key, None)
                continue
            for other in below:
                del found[other]
            found[key] = layer
    return found


def _resolved(cfg: DictConfig, key: str, written: Any) -> Any:
    """The value; as it is written where it is missing, or refers to what the command adds only later."""
    try:
        value = OmegaConf.select(cfg, key, throw_on_missing=True)
    except OmegaConfBaseException:
        return written
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _shown(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, default=str)
    plain = value.isprintable() and value == value.strip() and value not in ("", "null", "true", "false")
    return value if plain and not value.replace(".", "").isdigit() else json.dumps(value, ensure_ascii=False)


def _source(leaf: Leaf, by_key: dict[str, Leaf], typed: Collection[str]) -> str:
    said = str(leaf.origin)
    if leaf.origin.setting is not None:
        said = f"{'command line' if leaf.origin.setting in typed else 'implied'}: {said}"
    named = _REFERENCE.findall(leaf.written) if isinstance(leaf.written, str) else []
    taken = [f"{key} ({by_key[key].origin})" for key in named if key in by_key]
    if taken:
        return f"{said} <- {', '.join(taken)}"
    return f"{said} (must be set)" if leaf.value == "???" else said


def _lines(rows: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    names = max(len(key.rpartition(".")[2]) for key, _, _ in rows) + 4
    values = max((len(value) for _, value, _ in rows if len(value) <= _WIDEST_VALUE), default=0) + 2
    for number, (place, inside) in enumerate(groupby(rows, key=lambda row: row[0].rpartition(".")[0])):
        if place or number:
            yield place or "(top)"
        for key, value, source in inside:
            begin = f"{'  ' if place else ''}{key.rpartition('.')[2]}".ljust(names)
            if len(value) > _WIDEST_VALUE:
                yield f"{begin}{value}"
                begin, value = " " * names, ""
            line = f"{begin}{value.ljust(values)}{source}"
            said, _, taken = line.partition(" <- ")
            if len(line) > _WIDTH and taken:
                yield said
                line = f"<- {taken}".rjust(min(_WIDTH, names + values + len(taken) + 3))
            yield line
