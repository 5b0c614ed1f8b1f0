"""The BabyLM challenge's questions: which of several texts is likelier, as its evaluation pipeline of 2026 asks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.evaluation.json_lines import records_in, text_of

Record = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """Texts, the first of which is right."""

    uid: str
    texts: tuple[str, ...]
    completions: tuple[str, ...]  # what each of `texts` ends with: what is scored
    told: tuple[str, ...]  # what a prediction is called by
    ratio: float | None = None  # of people who say the first; where that is known, it is compared with


def items_in(task: str, file: Path) -> list[Item]:
    """Those of a file of JSON Lines; `UserError` names the record that is none."""
    read = _READ[task]
    found = []
    for number, record in enumerate(records_in(file), start=1):
        try:
            found.append(read(record, file, number))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"record {number} of '{file}' is none of the BabyLM challenge's task {task} ({error!r}); give its files"
            ) from None
    return found


def _blimp(record: Record, file: Path, number: int) -> Item:
    pair = tuple(text_of(record, name, file, number) for name in ("sentence_good", "sentence_bad"))
    return Item(str(record["UID"]) if "field" in record else file.stem, pair, pair, pair)


def _ewok(record: Record, file: Path, number: int) -> Item:
    """One context, two targets."""
    context, *targets = (text_of(record, name, file, number) for name in ("Context1", "Target1", "Target2"))
    ends = tuple(f" {target}" for target in targets)
    return Item(str(record["Domain"]), tuple(context + end for end in ends), ends, ends)


def _wug(task: str) -> Callable[[Record, Path, int], Item]:
    def read(record: Record, file: Path, number: int) -> Item:
        texts = tuple(record["sentences"].split("\t"))
        return Item(task, texts, texts, texts, float(record["ratio"]))

    return read


def _entity_tracking(record: Record, file: Path, number: int) -> Item:
    ends = tuple(map(str, record["options"]))
    prefix = text_of(record, "input_prefix", file, number)
    return Item(f"{file.stem}_{record['numops']}_ops", tuple(prefix + end for end in ends), ends, ends)


def _comps(record: Record, file: Path, number: int) -> Item:
    """Two concepts, one property, which is what is scored."""
    names = ("prefix_acceptable", "prefix_unacceptable", "property_phrase")
    *prefixes, phrase = (text_of(record, name, file, number) for name in names)
    texts = tuple(f"{prefix} {phrase}" for prefix in prefixes)
    kinds = {"comps_base": "base", "comps_wugs": "wugs", "comps_wugs_dist-before": "wugs_dist_before"}
    return Item(kinds.get(file.stem, "wugs_dist_in_between"), texts, (phrase, phrase), texts)


_READ: dict[str, Callable[[Record, Path, int], Item]] = {
    "blimp": _blimp,
    "ewok": _ewok,
    "wug_adj": _wug("wug_adj"),
    "wug_past": _wug("wug_past"),
    "entity_tracking": _entity_tracking,
    "comps": _comps,
}
