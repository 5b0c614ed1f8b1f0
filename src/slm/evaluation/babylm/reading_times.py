"""How much a model's surprisal says of how long people read a word (De Varda et al. 2023), as the challenge asks it."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from slm.errors import UserError
from slm.evaluation.benchmarks.findings import mean
from slm.evaluation.reader import Reader
from slm.scoring.token_scores import ScoreRequest

_EYE = ("RTfirstfix", "RTfirstpass", "RTgopast", "RTrightbound")
_SELF_PACED = "self_paced_reading_time"
_ALONE = ("Subtlex_log10", "length", "context_length")
_WITH_LAST = (*_ALONE, "prev_length", "prev_pred")  # what was read before shows later
_TEXTS = ("item", "word", "prev_item", "prev_word")
_NEEDED = (*_TEXTS, *_EYE, _SELF_PACED, *_ALONE, "prev_length")


@dataclass(frozen=True)
class Reading:
    """Surprisal in nats of each row's word, and of the one before where there is one (nan)."""

    surprisal: list[float]
    before: list[float]
    figures: Mapping[str, float]  # percent of what is left unexplained without surprisal that it explains

    @property
    def predictions(self) -> dict[str, Any]:
        """As they are handed in."""
        rows = zip(self.surprisal, self.before, strict=True)
        told = [{"id": number, "pred": pred, "prev_pred": before} for number, (pred, before) in enumerate(rows)]
        return {"reading": {"predictions": told}}


def reading(file: Path, reader: Reader) -> Reading:
    """Of the challenge's ``reading_data.csv``; `UserError` if columns are missing."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    if missing := [name for name in _NEEDED if not rows or name not in rows[0]]:
        raise UserError(f"'{file}' has no column {', '.join(missing)}; give the challenge's reading_data.csv")
    surprisal = _surprisal([(row["item"] or "None", row["word"]) for row in rows], reader)
    has_last = [bool(row["prev_item"]) for row in rows]
    last = iter(_surprisal([(row["prev_item"], row["prev_word"]) for row in rows if row["prev_item"]], reader))
    before = [next(last) if has else math.nan for has in has_last]
    columns = {name: np.array([_number(row[name]) for row in rows]) for name in _NEEDED if name not in _TEXTS}
    columns |= {"pred": np.array(surprisal), "prev_pred": np.array(before)}
    eye = mean([explained(columns, name, _ALONE) for name in _EYE])
    return Reading(surprisal, before, {"eye_tracking": eye, "self_paced": explained(columns, _SELF_PACED, _WITH_LAST)})


def _surprisal(words: Sequence[tuple[str, str]], reader: Reader) -> list[float]:
    """Of each word after its text: of each of its tokens the first that its letters are by themselves, after all that
    is written until then, as the challenge's pipeline has it."""
    tokenizer = reader.tokenizer
    requests, owner = [], []
    for number, (text, word) in enumerate(words):
        targets = tokenizer.encode(word)
        for place, target in enumerate(targets):
            letters = tokenizer.decode([target])
            aimed = target if place == 0 else tokenizer.encode(letters)[0]
            requests.append(ScoreRequest([*tokenizer.begin_ids, *tokenizer.encode(text)], [aimed]))
            owner.append(number)
            text += letters
    found = [0.0] * len(words)
    for number, scores in zip(owner, reader.scores(requests), strict=True):
        found[number] -= scores.logprobs[0]
    return found


def explained(columns: Mapping[str, np.ndarray], of: str, by: Sequence[str]) -> float:
    """Percent of the variance of `of`, not explained by the columns `by` and their products in pairs, that ``pred``
    explains: two linear regressions, each over the rows that have all of its columns."""
    without = _r_squared(columns, of, by, ())
    return 100 * (_r_squared(columns, of, by, ("pred",)) - without) / (1 - without)


def _r_squared(columns: Mapping[str, np.ndarray], of: str, by: Sequence[str], more: Sequence[str]) -> float:
    used = np.stack([columns[name] for name in (of, *by, *more)])
    rows = used[:, np.isfinite(used).all(axis=0)]
    y, x = rows[0], rows[1:]
    products = [x[i] * x[j] for i, j in combinations(range(len(by)), 2)]
    design = np.stack([np.ones_like(y), *x, *products], axis=1)
    found, *_ = np.linalg.lstsq(design, y, rcond=None)
    rest = y - design @ found
    return float(1 - rest @ rest / ((y - y.mean()) @ (y - y.mean())))


def _number(text: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan
