"""Files of conversations to samples: forms, faults, parts, what is too long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slm.chat.renderer import ChatRenderer
from slm.chat.template import with_template
from slm.data.batches.read_records import read_conversations
from slm.data.batches.samples import make_samples
from slm.data.config import CorpusConfig
from slm.data.faults import Faults
from slm.errors import UserError
from slm.tokenizers.byte import ByteTokenizer

ASKED, ANSWERED = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def corpus(path: Path, **settings: Any) -> CorpusConfig:
    return CorpusConfig.from_dict({"kind": "instructions", "cache_dir": "x", "path": str(path), **settings})


def write(file: Path, records: list[Any]) -> Path:
    if file.suffix == ".json":
        file.write_text(json.dumps(records), encoding="utf-8")
    else:
        file.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records), encoding="utf-8")
    return file


def test_a_share_is_held_out_and_equal_records_stay_together(tmp_path: Path) -> None:
    """A record more moves few others from one part to the other; JSON and JSON Lines are read alike."""
    records = [{"prompt": f"q{i % 150}", "response": "a"} for i in range(300)]
    parts = read_conversations(corpus(write(tmp_path / "a.jsonl", records), val_fraction=0.2), Faults())
    prompts = [{talk[0]["content"] for talk in part} for part in (parts["train"], parts["val"])]
    assert not prompts[0] & prompts[1]
    assert (len(parts["train"]), len(parts["val"])) == (240, 60)
    again = read_conversations(corpus(write(tmp_path / "a.json", records), val_fraction=0.2), Faults())
    assert again == parts
    more = write(tmp_path / "b.jsonl", [*records, {"prompt": "new", "response": "a"}])
    moved = {talk[0]["content"] for talk in read_conversations(corpus(more, val_fraction=0.2), Faults())["val"]}
    assert len(moved ^ prompts[1]) <= 2


def test_a_file_of_its_own_is_the_validation_part(tmp_path: Path) -> None:
    train = write(tmp_path / "t.jsonl", [{"prompt": "q", "response": "a"}])
    val = write(tmp_path / "v.jsonl", [{"messages": [ASKED, ANSWERED]}])
    parts = read_conversations(corpus(train, val_path=str(val)), Faults())
    assert (parts["train"], parts["val"]) == ([[ASKED, ANSWERED]], [[ASKED, ANSWERED]])


def test_bad_records_are_refused_with_their_line_or_counted(tmp_path: Path) -> None:
    good = [{"prompt": f"q{i}", "response": "a"} for i in range(20)]
    file = write(tmp_path / "a.jsonl", [good[0], {"promt": "q"}, *good[1:], "{broken"])
    with pytest.raises(
        UserError, match=r"line 2 of .*a.jsonl' has no form of a conversation .*'promt'.*data.on_bad=skip"
    ) as e:
        read_conversations(corpus(file), Faults())
    assert "\n" not in str(e.value)
    faults = Faults("skip")
    parts = read_conversations(corpus(file, on_bad="skip"), faults)
    assert len(parts["train"]) + len(parts["val"]) == 20
    assert (faults.counts["no_conversation"], faults.counts["bad_json"]) == (1, 1)


def test_nothing_for_a_part_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no conversation for training"):
        read_conversations(corpus(write(tmp_path / "a.jsonl", [{"prompt": "q", "response": "a"}])), Faults())


def talk(answer: str, question: str = "q") -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_what_is_too_long_is_dropped_cut_or_refused_and_counted() -> None:
    """A window of 20 positions holds 21 tokens: of the short ones all, of the long ones none, their start or end."""
    (template := "{% for m in messages %}{{ m.content }}:{% endfor %}")
    renderer = ChatRenderer(with_template_text(template))
    talks = [talk("short"), talk("x" * 30), talk("a", "y" * 30), talk("b")]
    whole = make_samples(talks, renderer, 100, "drop", "responses")
    assert (len(whole), whole.too_long, whole.without) == (4, 0, 0)

    dropped = make_samples(talks, renderer, 20, "drop", "responses")
    assert (dropped.kept, dropped.too_long, dropped.cut, dropped.without) == ([0, 3], 2, 0, 0)
    start = make_samples(talks, renderer, 20, "keep_start", "responses")
    assert (start.kept, start.cut, start.without) == ([0, 1, 3], 1, 1)  # of the long question nothing is learnt
    assert start.ids[start.offsets[1] : start.offsets[2]].tolist() == list(b"q:" + b"x" * 19)
    end = make_samples(talks, renderer, 20, "keep_end", "responses")
    assert (end.kept, end.cut, end.without) == ([0, 1, 2, 3], 2, 0)
    assert end.ids[end.offsets[2] : end.offsets[3]].tolist() == [*b"y" * 17, *b":a:", ByteTokenizer.eos_id]
    assert end.report()["too_long_cut"] == 2
    with pytest.raises(UserError, match="conversation 2 has 34 tokens"):
        make_samples(talks, renderer, 20, "refuse", "responses")


def test_loss_on_all_learns_the_question_too() -> None:
    renderer = ChatRenderer(with_template(ByteTokenizer(), "chatml"))
    responses = make_samples([talk("ab")], renderer, 100, "drop", "responses")
    everything = make_samples([talk("ab")], renderer, 100, "drop", "all")
    assert responses.learnt.sum() == 3  # two bytes and the end of the turn
    assert everything.learnt.all()
    assert responses.ids.tolist() == everything.ids.tolist()
    assert responses.learnt[-1]  # the line break behind the last turn is left out


def with_template_text(template: str) -> Any:
    from slm.tokenizers.extended import ExtendedTokenizer

    return ExtendedTokenizer(ByteTokenizer(), [], template)


def rows_of_a_tree(root: str) -> list[dict[str, Any]]:
    """As OASST's Parquet files have them: the second reply is the better one, and goes on."""

    def row(name: str, parent: str | None, role: str, text: str, rank: float | None = None) -> dict[str, Any]:
        ids = {"message_id": f"{root}{name}", "parent_id": parent and f"{root}{parent}", "message_tree_id": root}
        return {**ids, "role": role, "text": text, "rank": rank, "deleted": False, "lang": "en"}

    return [
        row("1", None, "prompter", f"q{root}"),
        row("2", "1", "assistant", "worse", 1.0),
        row("3", "1", "assistant", "a", 0.0),
        row("4", "3", "prompter", "q2", float("nan")),
        row("5", "4", "assistant", "a2", None),
    ]


def test_rows_of_one_message_each_are_put_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In any order, trees of several mixed, also beside records of other forms."""
    rows = [row for pair in zip(rows_of_a_tree("x"), rows_of_a_tree("y"), strict=True) for row in reversed(pair)]
    file = write(tmp_path / "rows.jsonl", [*reversed(rows), {"prompt": "q", "response": "a"}])
    found = read_conversations(corpus(file), Faults(), "all")["all"]
    talks = [[message["content"] for message in talk] for talk in found]
    assert sorted(talks) == [["q", "a"], ["qx", "a", "q2", "a2"], ["qy", "a", "q2", "a2"]]
    told = capsys.readouterr().err
    assert "data: 10 rows are one message each; by parent_id they make 2 trees" in told
    assert "3 records: 2 as OASST trees, of each the best-ranked path, 1 as prompt/response" in told


def test_a_row_without_its_tree_is_refused_or_counted(tmp_path: Path) -> None:
    rows = rows_of_a_tree("x")
    file = write(tmp_path / "rows.jsonl", [*rows[:2], *rows[3:], rows[0], *rows_of_a_tree("y")])
    with pytest.raises(UserError, match=r"line 5 of .*rows.jsonl' is the message 'x1' once more"):
        read_conversations(corpus(file), Faults(), "all")
    faults = Faults("skip")
    found = read_conversations(corpus(file), faults, "all")["all"]
    assert sorted([message["content"] for message in talk] for talk in found) == [
        ["qx", "worse"],
        ["qy", "a", "q2", "a2"],
    ]
    assert faults.counts == {"no_conversation": 2}
