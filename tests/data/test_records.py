"""Where records lie, and what is told of them: forms, fields that nothing reads, parts by their names."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from slm.chat.conversation_forms import conversation_of
from slm.chat.preference_forms import labelled_of, pair_of
from slm.data.batches.read_records import read_conversations
from slm.data.batches.recognised import recognised
from slm.data.batches.record_parts import record_parts
from slm.data.config import CorpusConfig
from slm.data.faults import Faults
from slm.errors import UserError

DATA = Path(os.environ.get("SLM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
CASES = DATA.parent / "cases"
USER, GOOD = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def corpus(path: Any, kind: str = "instructions", **settings: Any) -> CorpusConfig:
    given = str(path) if isinstance(path, Path) else path
    return CorpusConfig.from_dict({"kind": kind, "cache_dir": "x", "path": given, **settings})


def write(file: Path, records: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return file


def test_forms_and_fields_that_are_not_read_are_told_once(tmp_path: Path, capsys: Any) -> None:
    talks: list[dict[str, Any]] = [{"question": f"q{i}", "answer": "a", "id": i} for i in range(8)]
    file = write(tmp_path / "a.jsonl", [*talks, {"messages": [USER, GOOD], "source": "x"}])
    read_conversations(corpus(file), Faults())
    told = capsys.readouterr().err.splitlines()
    assert told == [f"data: of {file} 9 records: 8 as question/answer, 1 as messages; fields not read: id, source"]


def test_columns_and_roles_are_settings(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"q": f"q{i}", "reply": "a"} for i in range(8)])
    with pytest.raises(
        UserError, match=r"line 1 .*\(fields: 'q', 'reply'\).*data.columns={prompt: q, response: reply}"
    ):
        read_conversations(corpus(file), Faults())
    found = read_conversations(corpus(file, columns={"prompt": "q", "response": "reply"}), Faults())
    assert found["train"][0][1] == GOOD
    for settings, why in (
        ({"columns": {"promt": "q"}}, "data.columns"),
        ({"roles": {"human": 1}}, "data.roles"),
        ({"form": "sharegpt"}, "data.form"),
    ):
        with pytest.raises(UserError, match=why):
            corpus(file, **settings)


def names(sources: Any) -> list[str]:
    return [source.name for source in sources]


def test_the_parts_of_a_folder_are_known_by_their_names(tmp_path: Path, capsys: Any) -> None:
    """A folder's alone: who names files, by a list or a glob, has said which. A test part is read only where there is
    no other for validation."""
    for name in ("train_sft-00000-of-00001", "test_sft-00000-of-00001", "attest"):
        write(tmp_path / f"a/{name}.jsonl", [{"prompt": "q", "response": "a"}])
    parts = record_parts(corpus(tmp_path / "a"))
    assert (names(parts.train), names(parts.val)) == (
        ["attest.jsonl", "train_sft-00000-of-00001.jsonl"],
        ["test_sft-00000-of-00001.jsonl"],
    )
    assert "validation test_sft-00000-of-00001.jsonl (data.val_path says otherwise)" in capsys.readouterr().err
    write(tmp_path / "a/validation.jsonl", [{"prompt": "q", "response": "a"}])
    assert names(record_parts(corpus(tmp_path / "a")).val) == ["validation.jsonl"]
    assert "not read test_sft" in capsys.readouterr().err
    assert len(record_parts(corpus(tmp_path / "a", val_path=str(tmp_path / "a/attest.jsonl"))).train) == 4
    assert len(record_parts(corpus(f"{tmp_path}/a/*.jsonl")).train) == 4
    assert not record_parts(corpus(str(write(tmp_path / "test.jsonl", [])))).val


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    """One data set, or one a split, of which training and validation are known by their names, or named."""
    datasets = pytest.importorskip("datasets")

    def rows(n: int) -> Any:
        return datasets.Dataset.from_list([{"messages": [{**USER, "content": f"q{i}"}, GOOD]} for i in range(n)])

    rows(12).save_to_disk(tmp_path / "one")
    assert len(read_conversations(corpus(tmp_path / "one"), Faults())["train"]) == 11
    both = {"train_sft": rows(5), "test_sft": rows(2)}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "two")
    found = read_conversations(corpus(tmp_path / "two"), Faults())
    assert {name: len(part) for name, part in found.items()} == {"train": 5, "val": 2}
    assert found["val"][1] == [{"role": "user", "content": "q1"}, GOOD]
    datasets.DatasetDict({**both, "train_gen": rows(3)}).save_to_disk(tmp_path / "three")
    with pytest.raises(UserError, match=r"several splits \(train_sft, train_gen\).*data.split"):
        record_parts(corpus(tmp_path / "three"))
    named = corpus(tmp_path / "three", split="train_gen", val_split="test_sft")
    assert {name: len(part) for name, part in read_conversations(named, Faults()).items()} == {"train": 3, "val": 2}


@pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases here")
def test_every_case_is_a_conversation_a_pair_or_an_answer() -> None:
    """All of their records, of the form that it is."""
    made = {"instructions": conversation_of, "pairs": pair_of, "unpaired": labelled_of}
    found = {}
    for file in sorted([*(CASES / "instructions").iterdir(), *(CASES / "preferences").iterdir()]):
        kind = "instructions" if file.parent.name == "instructions" else "unpaired" if "kto" in file.name else "pairs"
        read = recognised(record_parts(corpus(file, kind)).train, partial(made[kind]), None, "no_pair", Faults())
        found[file.stem] = len(read)
    assert set(found.values()) == {40, 60}
    assert len(found) == 22
