"""Each benchmark against a loop that scores every sequence by itself, from all of its logits."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from small_model import by_itself, reads_bytes

from slm.errors import UserError
from slm.evaluation.benchmark_config import benchmark_config
from slm.evaluation.benchmarks.findings import Findings, wilson
from slm.evaluation.benchmarks.surprisal import words
from slm.evaluation.reader import CountingReader, Reader
from slm.evaluation.suite import suite
from slm.generation.language_model import LanguageModel
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.text_bytes import PlacedIds

EOS = ByteTokenizer.eos_id


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return reads_bytes()


def lines(file: Path, *records: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return file


def found(model: LanguageModel, task: str, **settings: Any) -> Findings:
    (own,) = suite(benchmark_config({"tasks": [task], **settings})).own.values()
    return own(Reader(model, batch_size=4))


def total(model: LanguageModel, context: str, text: str, ahead: tuple[int, ...] = (EOS,)) -> float:
    return math.fsum(by_itself(model.model, [*ahead, *context.encode()], list(text.encode()))[0])


def pair(good: str, bad: str, **more: str) -> dict[str, str]:
    return {"sentence_good": good, "sentence_bad": bad, **more}


def test_minimal_pairs_are_those_of_a_plain_loop(model: LanguageModel, tmp_path: Path) -> None:
    """On a model with no chat template, by all three scores; kinds by their UID, or by the file where there is none."""
    pairs = [("the cats run", "the cats runs"), ("she sees him", "she see him"), ("a dog barks", "a dogs barks")]
    first = lines(
        tmp_path / "a" / "agreement.jsonl", pair(*pairs[0], UID="u1", linguistics_term="verbs"), pair(*pairs[1])
    )
    lines(tmp_path / "a" / "nouns.jsonl", pair(*pairs[2], UID="u1", phenomenon="verbs"))
    one = found(model, "minimal_pairs", minimal_pairs={"path": str(first.parent)})
    alone = {
        token: by_itself(model.model, [EOS], [token])[0][0] for token in set("".join(map("".join, pairs)).encode())
    }
    right = {"sum": [], "mean": [], "pmi": []}
    for row, sentences in zip(one.rows, pairs, strict=True):
        sums = [total(model, "", sentence) for sentence in sentences]
        means = [value / len(sentence) for value, sentence in zip(sums, sentences, strict=True)]
        pmis = [
            value - sum(alone[b] for b in sentence.encode()) for value, sentence in zip(sums, sentences, strict=True)
        ]
        for name, values in (("sum", sums), ("mean", means), ("pmi", pmis)):
            assert [row[f"good_{name}"], row[f"bad_{name}"]] == pytest.approx(values, abs=1e-4)
            right[name].append(values[0] > values[1])
    assert [row["uid"] for row in one.rows] == ["u1", "agreement", "u1"]
    for name, answers in right.items():
        assert one.figures[f"accuracy_{name}"] == pytest.approx(sum(answers) / 3)
        of_u1 = (answers[0] + answers[2]) / 2
        assert one.figures[f"accuracy_{name}_by_uid"] == pytest.approx((of_u1 + answers[1]) / 2)
    by = {group["phenomenon"]: group for group in one.about["by"]["phenomenon"]}
    assert {name: group["pairs"] for name, group in by.items()} == {"verbs": 2, "agreement": 1}
    assert by["verbs"]["interval_sum"] == list(wilson(right["sum"][0] + right["sum"][2], 2))


def test_wilsons_interval() -> None:
    """His examples are on no machine; these are R's ``prop.test(8, 10, correct = FALSE)`` and its edges."""
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-6)
    assert wilson(10, 10) == pytest.approx((0.7224672, 1.0), abs=1e-6)
    assert all(map(math.isnan, wilson(0, 0)))


def test_surprisal_of_words_adds_up_to_that_of_the_text(model: LanguageModel, tmp_path: Path) -> None:
    """White space ahead of a word is that word's; the first is read after the end of text."""
    (tmp_path / "t.txt").write_text("The cät  sat.\n\n two words\n", encoding="utf-8")
    rows = found(model, "surprisal", surprisal={"path": str(tmp_path / "t.txt")}).rows
    assert [(row["text"], row["word"], row["tokens"]) for row in rows] == [
        (1, "The", 3), (1, "cät", 5), (1, "sat.", 6), (2, "two", 4), (2, "words", 6),
    ]  # fmt: skip
    bits = [-value / math.log(2) for value in by_itself(model.model, [EOS], list("The cät  sat.".encode()))[0]]
    assert [row["surprisal"] for row in rows[:3]] == pytest.approx(
        [sum(bits[:3]), sum(bits[3:8]), sum(bits[8:])], abs=1e-4
    )


def test_words_are_joined_from_tokens_that_cross_their_ends() -> None:
    """Of a vocabulary with white space at the end of tokens, and one at the end of the text, which is no word's."""
    placed = PlacedIds([1, 2, 3, 4], [0, 2, 5, 7], [2, 5, 7, 8])  # "ab", "cd ", "ef", " "
    assert [(word, round(bits), n) for word, bits, n in words("abcd ef ", placed, [-math.log(2)] * 4)] == [
        ("abcd", 2, 2),
        ("ef", 1, 1),
    ]


def test_choices_by_bits_a_byte(model: LanguageModel, tmp_path: Path) -> None:
    asked = {"question": "2 and 2 is", "choices": ["four", "seventeen", "5"], "answer": 0}
    one = found(model, "choices", choices={"path": str(lines(tmp_path / "q.jsonl", asked))})
    nats = [-total(model, asked["question"], f" {choice}", ahead=()) for choice in asked["choices"]]
    bits = [cost / math.log(2) / len(f" {choice}") for cost, choice in zip(nats, asked["choices"], strict=True)]
    assert one.figures["bits_per_byte"] == pytest.approx(bits[0], abs=1e-4)
    assert one.rows[0]["chosen"].strip() == asked["choices"][bits.index(min(bits))]
    assert one.figures["accuracy"] == float(bits.index(min(bits)) == 0)


def test_in_context_score(model: LanguageModel, tmp_path: Path) -> None:
    text = "".join(chr(97 + i * i % 23) for i in range(90))
    (tmp_path / "t.txt").write_text(text)
    settings = {"path": str(tmp_path / "t.txt"), "early": 5, "late": 20}
    one = found(model, "in_context", in_context=settings)
    losses = []
    for start in range(0, 84, 21):
        window = list(text[start : start + 21].encode())
        losses.append([-by_itself(model.model, window[:place], [window[place]])[0][0] for place in (5, 20)])
    assert one.figures["windows"] == 4
    assert one.figures["score"] == pytest.approx(sum(late - early for early, late in losses) / 4, abs=1e-4)
    with pytest.raises(UserError, match=r"in_context\.late: position 500 is behind what is read, 128 tokens"):
        found(model, "in_context", in_context={**settings, "late": 500})


def test_induction_is_the_gain_on_what_comes_twice(model: LanguageModel) -> None:
    one = found(model, "induction", induction={"length": 10, "sequences": 3})
    again = found(model, "induction", induction={"length": 10, "sequences": 3})
    assert one == again
    assert one.figures["score"] == pytest.approx(one.figures["loss_first"] - one.figures["loss_second"], abs=1e-6)
    other = found(model, "induction", induction={"length": 10, "sequences": 3, "seed": 2})
    assert other.figures["loss_first"] != one.figures["loss_first"]
    with pytest.raises(UserError, match="must be 2 to 64"):
        found(model, "induction", induction={"length": 65})


CORE = """icl_tasks:
- label: choose
  dataset_uri: choose.jsonl
  num_fewshot: [1]
  icl_task_type: multiple_choice
  continuation_delimiter: ": "
- {label: wino, dataset_uri: wino.jsonl, num_fewshot: [0], icl_task_type: schema}
- {label: last, dataset_uri: last.jsonl, num_fewshot: [0], icl_task_type: language_modeling}
"""


def bundle(folder: Path) -> Path:
    """A CORE of three tasks, one of each kind, in the form in which the real one lies about."""
    lines(
        folder / "eval_data" / "choose.jsonl",
        *({"query": f"q{i}", "choices": ["yes", "no", "yet"], "gold": i % 3} for i in range(6)),
    )
    lines(
        folder / "eval_data" / "wino.jsonl", {"context_options": ["He", "They all"], "continuation": "runs", "gold": 0}
    )
    lines(folder / "eval_data" / "last.jsonl", {"context": "one two ", "continuation": "three"})
    (folder / "core.yaml").write_text(CORE)
    (folder / "eval_meta_data.csv").write_text("Eval Task,Random baseline\nchoose,25\nwino,50\nlast,0\n")
    return folder


def test_core_asks_as_its_published_code(model: LanguageModel, tmp_path: Path) -> None:
    """Choices are compared behind all that their prompts share, by the loss a token; accuracies are stretched so that
    guessing is 0."""
    one = found(model, "core", core={"path": str(bundle(tmp_path))})
    by = {row["task"]: row for row in one.rows}
    assert by["wino"]["items"] == 1
    losses = [-total(model, context, " runs") / 5 for context in ("He", "They all")]  # both end with the space, too
    assert by["wino"]["accuracy"] == float(losses[0] < losses[1])
    greedy = by_itself(model.model, [EOS, *b"one two"], list(b" three"))[1]
    assert by["last"]["accuracy"] == float(all(greedy))
    for row in one.rows:
        chance = {"choose": 0.25, "wino": 0.5, "last": 0.0}[row["task"]]
        assert row["centered"] == pytest.approx((row["accuracy"] - chance) / (1 - chance))
    assert one.figures["core"] == pytest.approx(sum(row["centered"] for row in one.rows) / 3)


def test_core_puts_examples_ahead(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        Reader,
        "scores",
        lambda self, requests, top=0: asked.extend(requests) or CountingReader(model, 1).scores(requests),
    )
    found(model, "core", core={"path": str(bundle(tmp_path))})
    text = bytes([*asked[0].context, *asked[0].continuation][1:]).decode()
    example, empty, question = text.split("\n")
    assert empty == ""
    (number,) = question.partition(": ")[0].removeprefix("q")
    given, answer = example.split(": ")
    assert given != f"q{number}"
    assert answer == ["yes", "no", "yet"][int(given[1:]) % 3]


@pytest.mark.parametrize(
    ("task", "record", "said"),
    [
        ("minimal_pairs", {"sentence_good": "a"}, "record 1 of '.*' needs a text 'sentence_bad'; it has sentence_good"),
        ("choices", {"question": "a", "choices": ["b"]}, "needs 'choices', a list of at least two texts"),
        ("choices", {"question": "a", "choices": ["b", "c"], "answer": 2}, "the index of a choice, 0 to 1; got 2"),
        ("choices", ["no object"], "line 1 of '.*' is no JSON object"),
    ],
)
def test_a_record_that_is_none(task: str, record: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        suite(benchmark_config({"tasks": [task], task: {"path": str(lines(tmp_path / "x.jsonl", record))}}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tasks": ["minimal_pairs"]}, r"minimal_pairs\.path is missing: the task reads files of yours"),
        ({"tasks": ["induction", "induction"]}, "tasks names induction more than once"),
        ({"tasks": ["induction"], "num_fewshot": 3}, "num_fewshot is set, and no task that tasks names reads it"),
        ({"core": {"path": "x"}}, "core is set, and no task that tasks names reads it"),
        ({"tasks": ["in_context"], "in_context": {"late": 20}}, r"in_context: late must be after early \(50\); got 20"),
    ],
)
def test_settings_that_cannot_apply_say_so(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        benchmark_config(values)


def test_what_is_counted_is_what_is_read(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of the time that evaluation takes in training hangs on it."""
    config = benchmark_config(
        {
            "tasks": ["minimal_pairs", "induction"],
            "minimal_pairs": {"path": str(lines(tmp_path / "p.jsonl", pair("the cats", "the cat"), pair("so", "no")))},
            "induction": {"length": 8, "sequences": 2},
        }
    )
    counting, read = CountingReader(model, 1), 0
    inner = type(model.model).hidden_states

    def watched(self: Any, ids: Any, *rest: Any) -> Any:
        nonlocal read
        read += ids.numel()
        return inner(self, ids, *rest)

    monkeypatch.setattr(type(model.model), "hidden_states", watched)
    assert len(list(suite(config).run(counting))) == 2
    assert read == 0
    assert len(list(suite(config).run(Reader(model, 1)))) == 2
    assert read == counting.tokens
