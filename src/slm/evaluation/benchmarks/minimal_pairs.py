"""Minimal pairs: does a model find the sentence likelier that a speaker would say (Warstadt et al. 2020, BLiMP)?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.evaluation.benchmark_config import BenchmarkConfig, files_at
from slm.evaluation.benchmarks.findings import Findings, mean, wilson
from slm.evaluation.json_lines import records_in, text_of
from slm.evaluation.reader import Reader
from slm.scoring.token_scores import ScoreRequest

GOOD, BAD = "sentence_good", "sentence_bad"
MEASURES = ("sum", "mean", "pmi")
_PHENOMENON = ("phenomenon", "linguistics_term", "field")  # BLiMP's and BabyLM's names of it


@dataclass(frozen=True)
class Pair:
    """Two sentences, and of which kind they are."""

    good: str
    bad: str
    uid: str
    phenomenon: str


@dataclass(frozen=True)
class MinimalPairs:
    """A pair is right where the good sentence's score is the greater one, by three scores. ``sum`` is its
    log-probability after the beginning of a text (`SpelledTexts.begin_id`), ``mean`` that a token, ``pmi`` that less
    what each token alone has at the beginning of a text: a likely word counts for no more than a rare one (after
    Lau et al. 2017, with the model's own distribution there in place of a corpus' counts)."""

    pairs: Sequence[Pair]

    def __call__(self, reader: Reader) -> Findings:
        begin = [reader.spelled.begin_id]
        texts = [text for pair in self.pairs for text in (pair.good, pair.bad)]
        ids = [reader.spelled.ids(text) for text in texts]
        scores = reader.scores([ScoreRequest(begin, one) for one in ids])
        alone = _alone(reader, begin, ids)
        by_measure = {
            "sum": [one.total for one in scores],
            "mean": [mean(one.logprobs) for one in scores],
            "pmi": [one.total - sum(map(alone.__getitem__, own)) for one, own in zip(scores, ids, strict=True)],
        }
        rows = [
            {
                **vars(pair),
                **{f"{which}_{name}": values[2 * n + k] for name, values in by_measure.items() for k, which in _SIDES},
                **{f"right_{name}": values[2 * n] > values[2 * n + 1] for name, values in by_measure.items()},
            }
            for n, pair in enumerate(self.pairs)
        ]
        return Findings(_figures(rows), {"after": reader.spelled.begin, "by": _groups(rows)}, rows)


_SIDES = ((0, "good"), (1, "bad"))


def _alone(reader: Reader, begin: list[int], texts: Sequence[Sequence[int]]) -> Mapping[int, float]:
    """Of each token that comes up, its log-probability at the beginning of a text."""
    tokens = sorted({token for text in texts for token in text})
    scores = reader.scores([ScoreRequest(begin, [token]) for token in tokens])
    return {token: one.logprobs[0] for token, one in zip(tokens, scores, strict=True)}


def _figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Over all pairs, and the mean over kinds of pairs, by which BLiMP is reported: each kind counts alike."""
    by_uid = _by(rows, lambda row: row["uid"]).values()
    over_kinds = {
        f"accuracy_{name}_by_uid": mean([mean([row[f"right_{name}"] for row in group]) for group in by_uid])
        for name in MEASURES
    }
    return {**_accuracies(rows), **over_kinds, "pairs": len(rows)}


def _accuracies(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {f"accuracy_{name}": mean([row[f"right_{name}"] for row in rows]) for name in MEASURES}


def _groups(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Accuracies with their intervals, by phenomenon and by UID."""
    return {
        name: [
            {
                name: key,
                "pairs": len(group),
                **_accuracies(group),
                **{
                    f"interval_{m}": list(wilson(sum(row[f"right_{m}"] for row in group), len(group))) for m in MEASURES
                },
            }
            for key, group in _by(rows, lambda row, name=name: row[name]).items()
        ]
        for name in ("phenomenon", "uid")
    }


def _by(rows: Sequence[Mapping[str, Any]], key: Callable[..., Any]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def minimal_pairs(config: BenchmarkConfig) -> MinimalPairs:
    """Of files of JSON Lines with ``sentence_good`` and ``sentence_bad``; what has no ``UID`` is of its file's name,
    what has no phenomenon of its UID's. `UserError` where there are none. A `limit` is of each file's pairs."""
    files = files_at(config.minimal_pairs.path, (".jsonl", ".json"), "minimal_pairs.path")
    return MinimalPairs([pair for file in files for pair in _pairs_in(file, config)])


def _pairs_in(file: Path, config: BenchmarkConfig) -> list[Pair]:
    records = records_in(file)
    return [_pair(record, file, number) for number, record in enumerate(records[: config.taken(len(records))], start=1)]


def _pair(record: dict[str, Any], file: Path, number: int) -> Pair:
    uid = str(record.get("UID") or record.get("uid") or file.stem)
    phenomenon = next((str(record[name]) for name in _PHENOMENON if record.get(name)), uid)
    return Pair(text_of(record, GOOD, file, number), text_of(record, BAD, file, number), uid, phenomenon)
