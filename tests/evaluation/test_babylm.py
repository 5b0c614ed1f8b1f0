"""The BabyLM challenge's tasks against plain loops over all logits; its own pipeline is no part of this repository."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_model import by_itself, reads_bytes

from slm.errors import UserError
from slm.evaluation.babylm.reading_times import explained
from slm.evaluation.benchmark_config import benchmark_config
from slm.evaluation.benchmarks.findings import Findings
from slm.evaluation.reader import Reader
from slm.evaluation.suite import suite
from slm.generation.language_model import LanguageModel


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return reads_bytes()


def found(model: LanguageModel, folder: Path, **settings: Any) -> Findings:
    config = benchmark_config({"tasks": ["babylm"], "babylm": {"path": str(folder)}, **settings})
    return suite(config).own["babylm"](Reader(model, batch_size=4))


def write(file: Path, *records: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def score(model: LanguageModel, text: str, completion: str) -> float:
    """Of the completion's bytes, all that nothing stands ahead of left out."""
    ids, start = list(text.encode()), len(text.encode()) - len(completion.encode())
    scores = [math.nan, *by_itself(model.model, ids[:1], ids[1:])[0]]
    return math.fsum(scores[max(start, 1) :])


def test_each_task_ranks_what_it_compares(model: LanguageModel, tmp_path: Path) -> None:
    """Completions after their context, whole sentences otherwise; called by kind and number, as they are handed in."""
    good, bad = "the cät runs", "the cät run"
    write(tmp_path / "blimp_fast/a.jsonl", {"sentence_good": good, "sentence_bad": bad, "field": "f", "UID": "u"})
    write(tmp_path / "supplement_fast/turn.jsonl", {"sentence_good": bad, "sentence_bad": good})
    ewok = {"Context1": "she sees", "Context2": "he sees", "Target1": "it.", "Target2": "me."}
    write(tmp_path / "ewok_fast/x.jsonl", {**ewok, "Domain": "social"})
    entity = [{"input_prefix": "The box has", "options": [" a cat", " no", " it"], "numops": n} for n in (0, 1, 1)]
    write(tmp_path / "entity_tracking_fast/regular.jsonl", *entity)
    comps = {"prefix_acceptable": "a dog", "prefix_unacceptable": "a box", "property_phrase": "barks"}
    write(tmp_path / "comps/comps_wugs.jsonl", comps)
    wugs = [
        {"sentences": f"{one}ity\t{one}ness", "ratio": ratio} for one, ratio in (("a", 0.3), ("bb", 0.2), ("c", 0.9))
    ]
    write(tmp_path / "wug_adj_nominalization/w.jsonl", *wugs)
    one = found(model, tmp_path)
    expected = {
        "blimp/blimp_fast": ("u", [(good, good), (bad, bad)], [good, bad]),
        "blimp/supplement_fast": ("turn", [(bad, bad), (good, good)], [bad, good]),
        "ewok/ewok_fast": ("social", [(f"she sees {end}", f" {end}") for end in ("it.", "me.")], [" it.", " me."]),
        "comps/comps": (
            "wugs",
            [(f"a {who} barks", "barks") for who in ("dog", "box")],
            ["a dog barks", "a box barks"],
        ),
    }
    for name, (uid, texts, told) in expected.items():
        scores = [score(model, text, end) for text, end in texts]
        best = scores.index(max(scores))
        predictions = one.files[f"{name}/predictions.json"]
        assert predictions == {uid: {"predictions": [{"id": f"{uid}_0", "pred": told[best]}]}}
        assert one.figures[name.partition("/")[2]] == float(best == 0)
    tracked = one.files["entity_tracking/entity_tracking_fast/predictions.json"]
    assert {uid: len(of["predictions"]) for uid, of in tracked.items()} == {"regular_0_ops": 1, "regular_1_ops": 2}
    handed = one.files["wug_adj/wug_adj_nominalization/predictions.json"]["wug_adj"]["predictions"]
    for prediction, wug in zip(handed, wugs, strict=True):
        first, second = (score(model, text, text) for text in wug["sentences"].split("\t"))
        assert prediction["prob"] == pytest.approx(1 / (1 + math.exp(second - first)), abs=1e-5)
    ranks = [sorted(values).index(value) for values in ([p["prob"] for p in handed],) for value in values]
    differences = [rank - people for rank, people in zip(ranks, (1, 0, 2), strict=True)]
    rho = 1 - sum(d * d for d in differences) / 4  # Spearman's of three: 1 - 6 sum d^2 / (3 (9 - 1))
    assert one.figures["wug_adj_nominalization"] == pytest.approx(rho)
    assert (
        len(
            found(model, tmp_path, limit=1).files["wug_adj/wug_adj_nominalization/predictions.json"]["wug_adj"][
                "predictions"
            ]
        )
        == 1
    )


def test_surprisal_of_words_that_people_read(model: LanguageModel, tmp_path: Path) -> None:
    draw = random.Random(0)
    measured = ("RTfirstfix", "RTfirstpass", "RTgopast", "RTrightbound", "self_paced_reading_time")
    about = ("Subtlex_log10", "length", "context_length", "prev_length")
    rows = [
        {
            "item": "the cat" if n else "", "word": " sat", "prev_item": "the" if n else "", "prev_word": " cat",
            **{name: draw.gauss(200, 30) for name in (*measured, *about)},
        }
        for n in range(40)
    ]  # fmt: skip
    (tmp_path / "reading").mkdir()
    with (tmp_path / "reading/reading_data.csv").open("w", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    one = found(model, tmp_path)
    handed = one.files["reading/predictions.json"]["reading"]["predictions"]
    assert handed[1]["pred"] == pytest.approx(-score(model, "the cat sat", " sat"), abs=1e-4)
    assert handed[1]["prev_pred"] == pytest.approx(-score(model, "the cat", " cat"), abs=1e-4)
    assert handed[0]["pred"] == pytest.approx(-score(model, "None sat", " sat"), abs=1e-4)  # as pandas' reader has it
    assert math.isnan(handed[0]["prev_pred"])
    assert one.figures.keys() == {"reading_eye_tracking", "reading_self_paced"}


def test_what_surprisal_explains() -> None:
    """Of what is half noise half, whatever else explains; rows with a gap are left out."""
    draw = np.random.default_rng(0)
    a, b, pred, noise = draw.normal(size=(4, 100_000))
    columns = {"a": a, "b": b, "pred": pred, "y": 3 * a - a * b + pred + noise}
    assert explained(columns, "y", ("a", "b")) == pytest.approx(50, abs=1)
    assert explained({**columns, "pred": draw.normal(size=100_000)}, "y", ("a", "b")) == pytest.approx(0, abs=0.1)
    columns["a"] = np.where(draw.random(100_000) < 0.5, math.nan, a)
    assert explained(columns, "y", ("a", "b")) == pytest.approx(50, abs=1.5)


def test_a_folder_of_something_else(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"babylm\.path: .* holds none of the challenge's tasks"):
        found(model, tmp_path)
    write(tmp_path / "ewok_fast/x.jsonl", {"Context1": "a", "Target1": "b", "Target2": "c"})
    with pytest.raises(UserError, match=r"record 1 of '.*x\.jsonl' is none of the BabyLM challenge's task ewok"):
        found(model, tmp_path)
