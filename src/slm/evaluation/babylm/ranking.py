"""Which text a model finds likelier: predictions as the challenge collects them, and what they are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scipy.stats import spearmanr

from slm.evaluation.babylm.items import Item
from slm.evaluation.benchmarks.findings import mean
from slm.evaluation.reader import Reader
from slm.scoring.token_scores import ScoreRequest

_SPLITS = ("regular", "ambiref", "move_contents")  # of entity tracking: each counts alike


@dataclass
class Ranked:
    """Of the items of one folder."""

    predictions: dict[str, dict[str, list[dict[str, Any]]]] = field(
        default_factory=dict
    )  # by UID, as they are handed in
    right: dict[str, list[bool]] = field(default_factory=dict)  # by UID
    shares: list[tuple[float, float]] = field(default_factory=list)  # the first text's, of the model's and of people

    @property
    def by_uid(self) -> dict[str, float]:
        """Accuracy of each kind of item."""
        return {uid: mean([float(one) for one in found]) for uid, found in self.right.items()}

    def figure(self, task: str) -> float:
        """The mean accuracy over kinds of items; where people were asked the rank correlation with them."""
        if self.shares:
            return float(spearmanr(*zip(*self.shares, strict=True))[0]) if len(self.shares) > 1 else math.nan
        by_uid = self.by_uid
        if task != "entity_tracking":
            return mean(list(by_uid.values()))
        groups = [[value for uid, value in by_uid.items() if uid.startswith(split)] for split in _SPLITS]
        return mean([mean(group) for group in groups if group])


def ranked(items: Sequence[Item], reader: Reader) -> Ranked:
    """Put all `items` to a model."""
    asked = [
        _Asked.of(text, end, reader) for item in items for text, end in zip(item.texts, item.completions, strict=True)
    ]
    scores = reader.scores([one.request for one in asked])
    totals = iter(
        math.fsum(score for score, counts in zip(found.logprobs, one.counts, strict=True) if counts)
        for one, found in zip(asked, scores, strict=True)
    )
    result = Ranked()
    for item in items:
        _take(result, item, [next(totals) for _ in item.texts])
    return result


def _take(result: Ranked, item: Item, totals: list[float]) -> None:
    best = max(range(len(totals)), key=totals.__getitem__)
    found = result.predictions.setdefault(item.uid, {"predictions": []})["predictions"]
    found.append({"id": f"{item.uid}_{len(found)}", "pred": item.told[best]})
    result.right.setdefault(item.uid, []).append(best == 0)
    if item.ratio is not None:
        share = 1 / math.fsum(math.exp(min(one - totals[0], 700.0)) for one in totals)
        found[-1]["prob"] = share
        result.shares.append((share, item.ratio))


@dataclass(frozen=True)
class _Asked:
    """A text as it is read, and which of its tokens count."""

    request: ScoreRequest
    counts: Sequence[bool]  # of each token but what stands ahead of all

    @classmethod
    def of(cls, text: str, completion: str, reader: Reader) -> _Asked:
        """Tokens that hold a character of the `completion` count; the first of a text without a begin, which nothing
        stands ahead of, does not."""
        placed = reader.tokenizer.encode_parts([text])
        start = len(text) - len(completion)
        begin = list(reader.tokenizer.begin_ids)
        ids, counts = [*begin, *placed.ids], [*[False] * len(begin), *(end > start for end in placed.ends)]
        return cls(ScoreRequest(ids[:1], ids[1:]), counts[1:])
