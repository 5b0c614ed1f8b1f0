"""What `conf/data/*.yaml` may say: every mistake is a line, all of them in one error."""

from __future__ import annotations

from typing import Any

import pytest

from slm.data.config import CorpusConfig, DataConfig
from slm.errors import UserError

TEXT = {"kind": "text", "cache_dir": "cache", "path": "x.txt", "patterns": ["*.txt"]}
ALLOWED = "(allowed under 'data': path, patterns, split_by_name, test_path, val_path)"


def lines(values: dict[str, Any], config: Any = DataConfig, **given: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        config.from_dict(values, **given)
    return str(caught.value).splitlines()


def test_a_flat_node_becomes_a_corpus_and_its_windows() -> None:
    """The corpus's own settings, and none but those, are what its function will be called with."""
    own = {"path": "x.txt", "patterns": ["*.txt"]}
    assert DataConfig.from_dict({**TEXT, "seq_len": 8}) == DataConfig(CorpusConfig("text", "cache", 0.1, own), 8, 0)
    values = {**TEXT, "path": ["x", "y"], "val_fraction": 0.5, "seq_len": 8, "num_workers": 2}
    config = DataConfig.from_dict(values)
    assert config == DataConfig(CorpusConfig("text", "cache", 0.5, {**own, "path": ["x", "y"]}), 8, 2)
    assert CorpusConfig.from_dict(values) == config.corpus, "slm-prepare makes no windows"


def test_all_problems_are_reported_at_once() -> None:
    """Of the common keys, of the corpus's own and of the windows: whoever mends one need not come back for the next."""
    found = lines(
        {"kind": "text", "cache_dir": 3, "val_fraction": 1, "seq_len": 0, "num_workers": -1, "path": 4, "patern": ["x"]}
    )
    assert found == [
        "data.cache_dir should be a valid string; got 3",
        "data.val_fraction should be less than 1; got 1",
        "data.path should be a valid string or should be a valid list; got 4",
        f"unknown key 'data.patern'; did you mean 'patterns'? {ALLOWED}",
        "data.patterns is missing; set it",
        "data.seq_len should be greater than 0; got 0",
        "data.num_workers should be greater than or equal to 0; got -1",
    ]


def test_what_must_be_there() -> None:
    missing = ["data.kind is missing; set it", "data.cache_dir is missing; set it", "data.seq_len is missing; set it"]
    assert lines({}) == missing
    own = ["data.path is missing; set it", "data.patterns is missing; set it"]
    assert lines({"kind": "text"}) == [missing[1], *own, missing[2]]
    elsewhere = [line.replace("data", "here") for line in (missing[1], *own)]
    assert lines({"kind": "text"}, CorpusConfig, where="here") == elsewhere


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seq_len": "8"}, "data.seq_len should be a valid integer; got '8'"),
        ({"seq_len": True}, "data.seq_len should be a valid integer; got True"),
        ({"seq_len": 8.0}, "data.seq_len should be a valid integer; got 8.0; did you mean '8'?"),
        ({"num_workers": None}, "data.num_workers should be a valid integer; got None"),
        ({"val_fraction": "0.1"}, "data.val_fraction should be a valid number; got '0.1'"),
        ({"val_fraction": 0}, "data.val_fraction should be greater than 0; got 0"),
        ({"val_fraction": float("nan")}, "data.val_fraction should be less than 1; got nan"),
        ({"kind": 3}, "data.kind should be a valid string; got 3"),
        (
            {"kind": "txt"},
            "data.kind: there is no 'txt'; did you mean 'text'? "
            "(known: babylm, code, csv, datasets, instructions, jsonl, pairs, parquet, python_stdlib, "
            "shakespeare_char, text, tokens, unpaired, prepared, mixture)",
        ),
        ({"patterns": "*.txt"}, "data.patterns should be a valid list; got '*.txt'"),
        ({"path": ["x", 3]}, "data.path should be a valid string; got ['x', 3]"),
        ({"val_bytes": 0}, "data.val_bytes should be greater than 0; got 0"),
        ({"test_bytes": 0.1}, "data.test_bytes should be a valid integer; got 0.1"),
        ({"split_by_name": "no"}, "data.split_by_name should be a valid boolean; got 'no'; did you mean 'false'?"),
        (
            {"settings": {}},
            f"unknown key 'data.settings' {ALLOWED}",
        ),
    ],
)
def test_one_mistake_is_one_line(changes: dict[str, Any], said: str) -> None:
    assert lines({**TEXT, "seq_len": 8, **changes}) == [said]


def test_each_kind_takes_its_own_settings() -> None:
    common = {"cache_dir": "cache", "seq_len": 8}
    assert DataConfig.from_dict({**common, "kind": "prepared", "path": "store"}).corpus.settings == {"path": "store"}
    assert lines({**common, "kind": "prepared", "patterns": []}) == [
        "unknown key 'data.patterns' (allowed under 'data': path)",
        "data.path is missing; set it",
    ]
    assert lines({**common, "kind": "python_stdlib", "path": "x"}) == [
        "unknown key 'data.path' (allowed under 'data': nothing)"
    ]


def test_a_mixture_has_parts_with_settings_of_their_own() -> None:
    part = {key: value for key, value in TEXT.items() if key != "cache_dir"}
    parts = {"a": {**part, "weight": 3, "on_bad": "skip"}, "b": {"kind": "prepared", "path": "x", "cache_dir": "own"}}
    mixture = {"kind": "mixture", "cache_dir": "cache", "seq_len": 8}
    found = DataConfig.from_dict({**mixture, "parts": parts}).corpus.parts
    assert [(p.name, p.weight, p.corpus.kind, p.corpus.cache_dir) for p in found] == [
        ("a", 3.0, "text", "cache"),
        ("b", 1.0, "prepared", "own"),
    ]
    assert [p.corpus.reading.on_bad for p in found] == ["skip", "refuse"]
    wrong = {"a": {**part, "weight": 0}, "b": {**part, "patern": 1}, "c": mixture}
    assert [line.split(";")[0] for line in lines({**mixture, "parts": wrong})] == [
        "data.parts.a.weight should be greater than 0",
        "unknown key 'data.parts.b.patern'",
        "data.parts.c: a part cannot be a mixture itself",
    ]
    assert "data.parts names 1 corpora, and a mixture takes two or more" in lines({**mixture, "parts": {"a": part}})[0]
    light = {"a": part, "b": {**part, "weight": 0.0001}}
    assert lines({**mixture, "parts": light}) == [
        "data.parts.b.weight (0.0001) must be at least a thousandth of all (1.0001)"
    ]
