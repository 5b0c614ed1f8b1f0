"""Records of preferences to batches: what counts, what is left out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from slm.chat.preference_forms import Pair
from slm.chat.renderer import ChatRenderer
from slm.chat.template import with_template
from slm.data.batches.pairs import PairDataset, PairTokens, fingerprint, fitted, tokenized
from slm.data.batches.read_records import read_pairs
from slm.data.config import CorpusConfig
from slm.data.faults import Faults
from slm.errors import UserError
from slm.tokenizers.byte import ByteTokenizer

USER = {"role": "user", "content": "hi"}
TEMPLATE = "{% for m in messages %}<{{ m['role'][0] }}>{{ m['content'] }}{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}<a>{% endif %}"


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> ChatRenderer:
    file = tmp_path_factory.mktemp("template") / "chat.jinja"
    file.write_text(TEMPLATE)
    return ChatRenderer(with_template(ByteTokenizer(), "hf", str(file)))


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_only_the_last_answer_is_learnt(renderer: ChatRenderer) -> None:
    """Labels are the answer and its end, shifted; earlier answers, the prompt and the padding are -100."""
    history = (USER, said("assistant", "old"), said("user", "more"))
    pair = tokenized(Pair(history, "good", "awfully bad"), renderer)
    batch = PairDataset([pair, pair], 64, torch.tensor([[1.0, 2.0], [3.0, 4.0]])).__getitems__([1, 0])
    assert batch["input_ids"].shape == batch["labels"].shape == (4, 32)
    assert batch["reference"].tolist() == [3.0, 1.0, 4.0, 2.0]
    tokenizer = ByteTokenizer()
    for row, answer in zip(range(4), ("good", "good", "awfully bad", "awfully bad"), strict=True):
        labels, ids = batch["labels"][row], batch["input_ids"][row]
        learnt = (labels >= 0).nonzero().flatten()
        assert labels[learnt].tolist() == [*tokenizer.encode(answer), tokenizer.eos_id]
        assert tokenizer.decode(ids[: learnt[0] + 1].tolist()) == "<u>hi<a>old<u>more<a>"
        assert torch.equal(ids[learnt[1:]], labels[learnt[:-1]])


def test_no_row_is_longer_than_a_window(renderer: ChatRenderer) -> None:
    """Rounding up to a multiple of 8 once gave a model with a table of positions more than it has."""
    pair = tokenized(Pair((USER,), "good", "bad"), renderer)
    assert PairDataset([pair], 64).__getitems__([0])["input_ids"].shape[1] % 8 == 0
    batch = PairDataset([pair], pair.length - 1).__getitems__([0])
    assert (pair.length - 1) % 8
    assert batch["input_ids"].shape == (2, pair.length - 1)
    assert batch["labels"][0, -1] == ByteTokenizer().eos_id


def test_too_long_pairs(renderer: ChatRenderer) -> None:
    """Dropped, or both prompts lose the same beginning; an answer is never cut."""
    pair = tokenized(Pair((said("user", "a long question"),), "good", "badly"), renderer)
    assert fitted(pair, pair.length, "drop") is pair
    assert fitted(pair, pair.length - 1, "drop") is None
    cut = fitted(pair, pair.length - 5, "cut_prompt")
    assert cut is not None
    for one, other in ((cut.chosen, pair.chosen), (cut.rejected, pair.rejected)):
        assert one.ids.tolist() == other.ids[5:].tolist()
        assert one.ids[one.learnt].tolist() == other.ids[other.learnt].tolist()
    assert fitted(pair, len("badly") + 1, "cut_prompt") is None
    assert fingerprint([pair]) != fingerprint([cut])


def write(file: Path, records: list[Any]) -> str:
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return str(file)


def read(
    renderer: ChatRenderer, path: str, faults: Faults, longest: int = 64, **settings: Any
) -> tuple[list[PairTokens], list[PairTokens]]:
    values = {"kind": "pairs", "cache_dir": "unused", "path": path, "val_fraction": 0.2, **settings}
    return read_pairs(CorpusConfig.from_dict(values), faults, renderer, longest, "drop")


def record(i: int, **changes: Any) -> dict[str, Any]:
    return {"prompt": f"question {i // 2}", "chosen": f"yes {i}", "rejected": f"no {i}", **changes}


def test_left_out_is_counted_and_no_prompt_is_in_both_splits(renderer: ChatRenderer, tmp_path: Path) -> None:
    records = [record(i) for i in range(40)]
    records += [record(90, rejected="yes 90"), record(91, chosen="x" * 99), {"prompt": "x"}, record(92, chosen="")]
    path = write(tmp_path / "pairs.jsonl", records)
    with pytest.raises(UserError, match=r"pairs.jsonl' has no field 'chosen' .*set data.on_bad=skip"):
        read(renderer, path, Faults())
    faults = Faults("skip")
    train, val = read(renderer, path, faults)
    assert faults.counts == {"no_pair": 2, "same_answers": 1, "long_pair": 1}
    assert len(train) + len(val) == 40
    assert 8 <= len(val) <= 9
    prompts = [{bytes(p.chosen.ids[: p.chosen.learnt.argmax()].tolist()) for p in part} for part in (train, val)]
    assert not prompts[0] & prompts[1]


def test_validation_files(renderer: ChatRenderer, tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", [record(i) for i in range(10)])
    train, val = read(renderer, path, Faults(), val_path=write(tmp_path / "val.jsonl", [record(50)]))
    assert (len(train), len(val)) == (10, 1)
    with pytest.raises(UserError, match=r"the prompt of val.jsonl@0 is one of data.path too"):
        read(renderer, path, Faults(), val_path=write(tmp_path / "val.jsonl", [record(3, chosen="other")]))
    with pytest.raises(UserError, match=r"data.path: no pair is left \(pairs longer than data.seq_len, left out: 10"):
        read(renderer, path, Faults(), longest=8)
