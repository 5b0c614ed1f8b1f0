"""Which setting was meant: a key mistyped, one of another place, another tool's name, a group's or a choice's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.schema import dotted
from slm.suggest.nearest import ENOUGH, likeness, meant, ranked

_OF_THE_NAME, _OF_THE_PLACE = 0.75, 0.25
_CALLED_SO = 0.97  # another tool's name for it
_ALMOST_AS_GOOD = 0.93  # what a second suggestion must reach of the first one's likeness
_BY_ENDING = {".ndjson": "jsonl", ".json": "jsonl", ".bin": "tokens", ".npy": "tokens", ".idx": "tokens"}  # to choices
_WITH_THAT_CHOICE = 0.1  # a group is likelier to be meant if the value is one of its choices


@dataclass
class Vocabulary:
    """What there is to set."""

    keys: dict[str, Any]  # dotted -> value, interpolations unresolved, in the configuration's order; of mappings too
    groups: Mapping[str, Sequence[str]]  # group -> names of its choices

    def add(self, key: str, value: Any) -> None:
        """Take in a setting that the user adds, and what it stands in."""
        for place in _above(key):
            self.keys.setdefault(place, {})
        self.keys |= dotted({key: value})

    def may_hold(self, key: str) -> bool:
        """Whether that is for Hydra to know: what `key` stands in is a list, or the value of another setting."""
        values = [self.keys[place] for place in _above(key) if place in self.keys]
        return bool(values) and not isinstance(values[-1], dict)

    def below(self, key: str) -> list[str]:
        """Names of the settings directly below `key`."""
        return [name.rpartition(".")[2] for name in self.keys if name.rpartition(".")[0] == key]


def _above(key: str) -> list[str]:
    return [key[:place] for place, letter in enumerate(key) if letter == "."]


def nearest_settings(key: str, value: str | None, known: Vocabulary) -> list[str]:
    """At most two keys, or whole settings, that ``key=value`` may have been meant to be, the likeliest first."""
    if key == "data.path" and value and "data.parts" not in known.keys:  # of data that has none
        return [_data_at(value, known.groups.get("data", ()))]
    scores = {name: _likeness(key, value, name, known) for name in [*known.keys, *known.groups]}
    for setting in _called_otherwise(key, value, known):
        same_room = "." not in key or key.partition(".")[0] == setting.partition(".")[0]
        scores[setting] = max(scores.get(setting, 0), _CALLED_SO if same_room else ENOUGH)
        scores[setting.partition("=")[0]] = scores[setting] if "=" not in setting else 0.0
    best = sorted((name for name in scores if scores[name] >= ENOUGH and name != key), key=lambda name: -scores[name])
    return [name for name in best[:2] if scores[name] >= _ALMOST_AS_GOOD * scores[best[0]]]


def nearest_choices(group: str, choice: str, choices: Sequence[str]) -> list[str]:
    """At most two choices of `group`, or whole settings where a file or model stands in a choice's place."""
    if group == "data" and (any(mark in choice for mark in "/.*~") or Path(choice).exists()):
        return [_data_at(choice, choices)]
    if group == "model" and "/" in choice:
        return [f"model.weights={choice}"]
    return ranked(choice, choices)[:2]


def _data_at(path: str, choices: Sequence[str]) -> str:
    """Settings for the data at `path`, by its ending or what lies there; text, where nothing tells."""
    place = Path(path)
    kind = _BY_ENDING.get(place.suffix.lower(), place.suffix.lower().removeprefix("."))
    if (place / "meta.json").is_file():
        kind = "prepared"
    return f"data={kind if kind in choices else 'text'} data.path={path}"


def _likeness(key: str, value: str | None, name: str, known: Vocabulary) -> float:
    is_group = name in known.groups
    if value is not None and not is_group and isinstance(known.keys.get(name), Mapping):
        return 0.0  # a mapping takes no value
    place, _, last = key.lower().replace("-", "_").rpartition(".")
    known_place, _, known_last = name.rpartition(".")
    of_name = likeness(last, known_last)
    if of_name < ENOUGH:
        return 0.0
    bonus = _WITH_THAT_CHOICE if is_group and value in known.groups[name] else 0.0
    return _OF_THE_NAME * of_name + _OF_THE_PLACE * _likeness_of_places(place, known_place) + bonus


def _likeness_of_places(place: str, known: str) -> float:
    """1 for the same one; a key from anywhere else is rather one near the top than one deep below."""
    if place == known:
        return 1.0
    depth = known.count(".") + 1 if known else 0
    if place and known.startswith(f"{place}."):
        return 0.95 - 0.05 * (depth - place.count(".") - 1)
    anywhere = 0.7 - 0.1 * depth
    return max(anywhere, likeness(place, known)) if place and known else anywhere


def _called_otherwise(key: str, value: str | None, known: Vocabulary) -> Iterator[str]:
    last = key.rpartition(".")[2]
    for setting in meant(f"{last}={value}") or meant(last):
        name, is_setting, choice = setting.partition("=")
        is_group = name in known.groups
        if choice in known.groups.get(name, ()) if is_group and is_setting else is_group or name in known.keys:
            yield setting
