"""Readers: every span once, the same text however it is packed, and no fault without a word."""

from __future__ import annotations

import gzip
import json
import random
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.data.config import Reading
from slm.data.corpora import datasets as HF_DATASETS
from slm.data.documents import compression, hf_datasets
from slm.data.documents import text as text_reader
from slm.data.documents.source import WHOLE, Document, Source, file_sources, in_parts
from slm.data.faults import Faults
from slm.errors import UserError

FEW = settings(max_examples=60, deadline=None)
WORDS = ["the", "naïve", "日本語", "x1", "(a)", ".", "\n", "\n\n   ", " ", "\t", "🙂", "été", "the end"]


def source(file: Path, **reading: Any) -> Source:
    return file_sources([file], Reading(**reading))[0]


def read(file: Path, on_bad: Any = "refuse", span_bytes: int | None = None, **reading: Any) -> list[Document]:
    return read_with(Faults(on_bad), file, span_bytes, **reading)


def read_with(faults: Faults, file: Path, span_bytes: int | None = None, **reading: Any) -> list[Document]:
    (of,) = file_sources([file], Reading(**reading))
    if span_bytes is not None:
        of.span_bytes = span_bytes
    return [document for span in of.spans() for document in of.read(span, faults)]


def texts(documents: list[Document]) -> list[str]:
    return [document.text for document in documents]


def compressed(file: Path, ending: str) -> Path:
    raw, place = file.read_bytes(), file.with_name(f"{file.name}{ending}")
    if ending == ".gz":
        place.write_bytes(gzip.compress(raw[: len(raw) // 2]) + gzip.compress(raw[len(raw) // 2 :]))  # two members
    else:
        zstd = pytest.importorskip("backports.zstd")
        place.write_bytes(zstd.compress(raw[: len(raw) // 2]) + zstd.compress(raw[len(raw) // 2 :]))
    return place


# ---- long texts ----


@given(words=st.lists(st.sampled_from(WORDS), max_size=120), span=st.sampled_from([24, 50, 200]))
@FEW
def test_a_text_in_parts_is_the_text(tmp_path_factory: pytest.TempPathFactory, words: list[str], span: int) -> None:
    """Whatever the size of parts: nothing is lost, no character is cut, the first part begins and the last one ends
    the document; and compressed it comes in the same parts."""
    file = tmp_path_factory.mktemp("text") / "a.txt"
    file.write_bytes("".join(words).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_reader.TextFile, "searched", 12)
        parts = read(file, span_bytes=span)
        assert "".join(texts(parts)) == "".join(words)
        assert all(part.text for part in parts)
        if parts:
            assert [part.begins for part in parts] == [True, *[False] * (len(parts) - 1)]
            assert [part.ends for part in parts] == [*[False] * (len(parts) - 1), True]
        assert len(parts) <= max(1, len("".join(words).encode()) // span)
        for ending in (".gz", ".zst"):
            again = read(compressed(file, ending), span_bytes=span)
            assert [(d.text, d.begins, d.ends) for d in again] == [(d.text, d.begins, d.ends) for d in parts]


@pytest.mark.parametrize("kind", ["bpe", "regex", "tiktoken"])
def test_parts_give_the_tokens_of_the_whole(kind: str, tmp_path: Path) -> None:
    """They are cut where these tokenizers cut as well. (Marks before a line break are joined to it by cl100k_base's
    pattern, which stands for tiktoken here.)"""
    import regex

    from slm.tokenizers.bpe import BpeTokenizer
    from slm.tokenizers.pieces import RegexTokenizer

    draw = random.Random(1)
    text = "".join(draw.choice([*WORDS, " of", " a", "b", "!\n", " 12"]) for _ in range(4000))
    encode: Callable[[str], list[Any]]
    if kind == "bpe":
        encode = BpeTokenizer.create([text], vocab_size=400).encode
    elif kind == "regex":
        encode = RegexTokenizer.create([text], min_frequency=1).encode
    else:
        cl100k = (
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
            r"|\s*[\r\n]|\s+(?!\S)|\s"
        )
        encode = regex.compile(cl100k).findall
    for whole in (text, text.replace(" ", "")):  # in the second, only line breaks are left to cut at
        parts = list(in_parts("a", whole, part_size=300, searched=100))
        assert len(parts) > 20
        assert [i for part in parts for i in encode(part.text)] == encode(whole)


# ---- records ----


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    draw = random.Random(0)
    return [{"text": "".join(draw.choices(WORDS, k=draw.randint(1, 30))) + "x", "n": i} for i in range(200)]


def write(rows: list[dict[str, Any]], file: Path) -> Path:
    if file.suffix == ".jsonl":
        file.write_text("\ufeff" + "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n")
    elif file.suffix == ".json":
        file.write_text("\ufeff \n" + json.dumps(rows, indent=1))
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        table = pytest.importorskip("pyarrow").Table.from_pylist(rows)
        parquet.write_table(table, file, row_group_size=30)
    return file


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("span", [1, 60, 1000, 1 << 20])
def test_every_record_is_read_once(rows: list[dict[str, Any]], ending: str, span: int, tmp_path: Path) -> None:
    """Whatever the spans are: also such that many lines lie in one, or many in one line."""
    documents = read(write(rows, tmp_path / f"a{ending}"), span_bytes=span)
    assert texts(documents) == [row["text"] for row in rows]
    assert len({document.name for document in documents}) == len(rows)
    assert [d.name for d in read(tmp_path / f"a{ending}")] == [d.name for d in documents], "names follow from the file"


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_compressed_records(rows: list[dict[str, Any]], ending: str, packed: str, tmp_path: Path) -> None:
    file = write(rows, tmp_path / f"a{ending}")
    packed_file = compressed(file, packed)
    assert source(packed_file).spans() == [WHOLE]
    assert texts(read(packed_file)) == [row["text"] for row in rows]


def test_the_field_and_the_format_are_settings(tmp_path: Path) -> None:
    (tmp_path / "a.data").write_text('{"content": "one"}\n{"content": "two"}\n')
    assert texts(read(tmp_path / "a.data", format="jsonl", field="content")) == ["one", "two"]
    (tmp_path / "b.json").write_text('{"content": "one"}\n{"content": "two"}\n')
    assert texts(read(tmp_path / "b.json", field="content")) == ["one", "two"], "a record a line, in a .json file"
    assert texts(read(tmp_path / "b.json", format="text")) == [(tmp_path / "b.json").read_text()]
    write([{"text": "x"}], tmp_path / "c.parquet")
    with pytest.raises(UserError, match=r"c.parquet' has no column 'content'; it has: text; .*=text\Z"):
        read(tmp_path / "c.parquet", "skip", field="content")


def test_long_records_come_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "word " * 100
    file = write([{"text": "a"}, {"text": long}, {"text": "b"}], tmp_path / "a.jsonl")
    monkeypatch.setattr("slm.data.documents.source.in_parts", lambda name, text: in_parts(name, text, part_size=50))
    documents = read(file)
    assert "".join(texts(documents[1:-1])) == long
    assert len(documents) > 6
    assert len({document.name for document in documents}) == 3
    assert sum(document.ends for document in documents) == sum(document.begins for document in documents) == 3


# ---- faults ----

GOOD = [{"text": f"text number {i}"} for i in range(100)]
GOOD_LINES = [json.dumps(row).encode() + b"\n" for row in GOOD]


def lines_with(bad: bytes) -> bytes:
    return b"".join([*GOOD_LINES[:50], bad + b"\n", *GOOD_LINES[50:]])


def gz_tail(raw: bytes) -> bytes:
    return gzip.compress(raw)[:-12]


ARRAY = json.dumps(GOOD).encode()
NOISE = "".join(random.Random(0).choices("abcdefgh ", k=4000)).encode()

# name, content, fault, what a refusal says, texts left by skip
FAULTS: dict[str, tuple[str, bytes, str, str, int]] = {
    "text not UTF-8": ("a.txt", b"caf\xe9", "not_utf8", r"'.*a.txt' is not UTF-8 text \(byte 0xe9 at offset 3\)", 0),
    "text with NUL": ("a.txt", b"a\0b", "nul", r"'.*a.txt' is binary, not text \(it holds NUL bytes\)", 0),
    "text .gz cut off": ("a.txt.gz", gz_tail(NOISE), "cut_off", r"'.*a.txt.gz' is cut off", 1),
    "text .gz damaged": ("a.txt.gz", gzip.compress(NOISE)[:300] + bytes(99), "unreadable", "is damaged|is cut off", -1),
    "not gzip": ("a.txt.gz", b"plain", "unreadable", r"'.*a.txt.gz' is damaged \(Not a gzipped file", 0),
    "a bad line": ("a.jsonl", lines_with(b'{"text": "x'), "bad_json", r"line 51 of '.*a.jsonl' is not JSON \(", 100),
    "an array": ("a.jsonl", lines_with(b"[1]"), "bad_json", r"line 51 of '.*a.jsonl' is an array, not an object", 100),
    "deep": ("a.jsonl", lines_with(b"[" * 2500), "bad_json", r"line 51 of '.*a.jsonl' is not JSON \(", 100),
    "no field": (
        "a.jsonl",
        lines_with(b'{"t": 1}'),
        "no_text",
        r"51 of .* has no field 'text' \(fields: 't'\)",
        100,
    ),
    "wrong field": (
        "a.jsonl",
        lines_with(b'{"text": 1}'),
        "no_text",
        r"51 of .* has int in the field 'text'",
        100,
    ),
    "line not UTF-8": ("a.jsonl", lines_with(b'{"text": "\xff"}'), "not_utf8", r"line 51 of .* is not UTF-8", 100),
    "line with NUL": (
        "a.jsonl",
        lines_with(b'{"text": "a\\u0000"}'),
        "nul",
        r"51 of .* holds NUL characters",
        100,
    ),
    "half a pair": ("a.jsonl", lines_with(b'{"text": "\\ud800"}'), "not_utf8", r"line 51 of .* half a surrogate", 100),
    "half a pair in an array": (
        "a.json",
        ARRAY[:-1] + b',{"text": "\\udc00"}]',
        "not_utf8",
        r"record #100 of '.*a.json' holds half a surrogate pair",
        100,
    ),
    "long line": ("a.jsonl", lines_with(b'{"text": "' + b"x" * 5000), "too_long", r"line 51 of .* is longer than", 100),
    "lines .gz cut off": ("a.jsonl.gz", gz_tail(b"".join(GOOD_LINES)), "cut_off", r"'.*a.jsonl.gz' is cut off", -1),
    "array cut off": ("a.json", ARRAY[:-20], "cut_off", r"'.*a.json' is cut off: its JSON has no end, after 99", 99),
    "array with a fault": (
        "a.json",
        ARRAY[:-1] + b",}]",
        "bad_json",
        r"'.*a.json' is not JSON \(.*, after 100 ",
        100,
    ),
    "array of numbers": ("a.json", b"[1]", "bad_json", r"record #0 of '.*a.json' is not an object", 0),
    "no array": ("a.json", b'"text"', "bad_json", r"'.*a.json' holds no array of records", 0),
    "array not UTF-8": ("a.json", ARRAY[:-1] + b',{"text": "\xff"}]', "not_utf8", r"'.*a.json' is not UTF-8", 0),
    "array, long": (
        "a.json",
        ARRAY[:-1] + b',{"text": "' + b"x" * 3 * 10**6,
        "too_long",
        r"has a record that is",
        100,
    ),
    "no Parquet": ("a.parquet", b"PAR1 no", "unreadable", r"'.*a.parquet' is damaged \(", 0),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("span_bytes", [1 << 20, 64])
def test_a_fault_is_refused_or_counted_and_named(fault: str, span_bytes: int, tmp_path: Path) -> None:
    """One error in one line that says where and how to go on; or all else is read, and the fault is in the report.
    Each counts once, whatever the spans are."""
    name, content, kind, said, left = FAULTS[fault]
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    if name == "a.txt":
        span_bytes = 1 << 20  # of a text in parts only the part is left out
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"\Adata\.path: [^\n]*(?:{said})[^\n]*data\.on_bad=skip[^\n]*\Z"):
        read(tmp_path / name, span_bytes=span_bytes, max_record_bytes=3000)
    faults = Faults("skip")
    kept = read_with(faults, tmp_path / name, span_bytes, max_record_bytes=3000)
    if fault == "text .gz damaged":
        assert sum(faults.counts.values()) == 1
    else:
        assert faults.counts == {kind: 1}
    if left >= 0 and not name.startswith("a.txt"):
        assert texts(kept) == [row["text"] for row in GOOD[:left]]
    assert name in faults.places[next(iter(faults.counts))][0]
    assert all(line.isprintable() for line in faults.lines())


def test_what_comes_before_a_break_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gz_tail(NOISE))
    (kept,) = read(tmp_path / "a.txt.gz", "skip")
    assert NOISE.decode().startswith(kept.text)
    assert len(kept.text) > 3000
    (tmp_path / "a.jsonl.gz").write_bytes(gz_tail(b"".join(GOOD_LINES)))
    kept_lines = texts(read(tmp_path / "a.jsonl.gz", "skip"))
    assert kept_lines == [row["text"] for row in GOOD[: len(kept_lines)]]
    assert len(kept_lines) > 50
    rows = [{"text": random.Random(0).randbytes(700_000).hex()}, *GOOD]
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode(), 1)[:-12])
    assert len(read(tmp_path / "a.json.gz", "skip")) > 50, "behind a record that several pieces hold"


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.txt", b"caf\xe9 a\0b", "caf\ufffd a\ufffdb"),
        ("a.jsonl", b'{"text": "caf\xe9"}', "caf\ufffd"),
        ("a.jsonl", b'{"text": "a\\u0000"}', "a\ufffd"),
        ("a.json", b'[{"text": "caf\xe9"}]', "caf\ufffd"),
        ("a.json", b'[{"text": "a\\ud83d b"}]', "a\ufffd b"),
    ],
)
def test_bytes_that_are_no_text_can_be_replaced(name: str, content: bytes, text: str, tmp_path: Path) -> None:
    """And are counted nevertheless."""
    (tmp_path / name).write_bytes(content)
    faults = Faults("replace")
    assert texts(read_with(faults, tmp_path / name)) == [text]
    assert sum(faults.counts.values()) == 1


def test_a_part_that_is_left_out_still_ends_its_document(tmp_path: Path) -> None:
    """Or else the end of text would be missing, and the next document run on from this one."""
    (tmp_path / "a.txt").write_bytes(b"word " * 40 + b"\xff" + b"word " * 2)
    faults = Faults("skip")
    documents = read_with(faults, tmp_path / "a.txt", span_bytes=50)
    assert documents[-1] == Document("a.txt", "", begins=False, ends=True)
    assert faults.as_dict() == {"not_utf8": {"count": 1, "places": ["a.txt@200"]}}


def test_one_bad_line_in_ten_thousand(tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"row {i}"}) if i != 7777 else '{"text": oops}' for i in range(10_000)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    with pytest.raises(UserError, match=r"line 7,778 of '.*a.jsonl' is not JSON"):
        read(tmp_path / "a.jsonl", span_bytes=5000)
    faults = Faults("skip")
    assert len(read_with(faults, tmp_path / "a.jsonl", 5000)) == 9999
    assert faults.counts == {"bad_json": 1}


def test_faults_of_several_processes_are_put_together() -> None:
    """Through JSON, with the first places in the order of the spans."""
    total = Faults("skip")
    for part in range(3):
        one = Faults("skip")
        for i in range(3):
            one.add("nul", f"{part}@{i}", str)
        one.note("empty", f"empty {part}")
        total.merge(json.loads(json.dumps(one.as_dict())))
    assert total.as_dict() == {
        "nul": {"count": 9, "places": ["0@0", "0@1", "0@2", "1@0", "1@1"]},
        "empty": {"count": 3, "places": ["empty 0", "empty 1", "empty 2"]},
    }
    assert total.lines()[0] == "NUL bytes: 9 (0@0, 0@1, 0@2, 1@0, 1@1, …)"


@pytest.mark.parametrize(("name", "documents"), [("a.txt", 11), ("a.jsonl", 0), ("a.txt.gz", 11)])
def test_a_line_of_100_mb_takes_no_memory_to_speak_of(name: str, documents: int, tmp_path: Path) -> None:
    """Text comes in parts; a JSONL line longer than ``max_record_bytes`` is never held."""
    piece = b'{"text": "' + b"word " * 200_000
    with gzip.open(tmp_path / name, "wb", 1) if name.endswith(".gz") else (tmp_path / name).open("wb") as out:
        for _ in range(100):
            out.write(piece)
    faults = Faults("skip")
    of = source(tmp_path / name)
    tracemalloc.start()
    try:
        n = sum(1 for span in of.spans() for _ in of.read(span, faults))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (n, sum(faults.counts.values())) == (documents, 1 if documents == 0 else 0)
    assert peak < 80e6


def test_readers_are_chosen_by_ending(tmp_path: Path) -> None:
    def of(name: str, **reading: Any) -> str:
        return type(source(Path(name), **reading)).__name__

    assert [of(name) for name in ("a.txt", "a", "a.md.gz", "a.py", "a.jsonl.txt")] == ["TextFile"] * 5
    assert [of(name) for name in ("a.jsonl", "a.NDJSON", "a.b.jsonl.zst")] == ["JsonlFile"] * 3
    assert [of("a.json"), of("a.json.gz"), of("a.parquet")] == ["JsonFile", "JsonFile", "ParquetFile"]
    assert of("a.json", format="text") == "TextFile"


def test_plain_text_holds_no_records(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match=r"'.*a.txt' is read as plain text, and records are wanted; "):
        next(source(tmp_path / "a.txt").records(WHOLE, Faults()))
    file = write(GOOD[:2], tmp_path / "a.jsonl")
    of = source(file)
    assert [r.values for span in of.spans() for r in of.records(span, Faults())] == GOOD[:2]


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("backports.zstd", "compression.zstd", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "a.txt.zst").write_bytes(b"x")
    (tmp_path / "a.parquet").write_bytes(b"x")
    for name, package in (("a.txt.zst", "zstd"), ("a.parquet", "pyarrow")):
        with pytest.raises(UserError, match=rf"needs the package '[a-z.]*{package}[a-z.]*': pip install 'slm\[data\]'"):
            read(tmp_path / name, "skip")


# ---- data sets of Hugging Face ----


@pytest.fixture
def saved(rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `save_to_disk` writes, and beside it the same as a folder of Parquet files."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "folder").mkdir()
    write(rows, tmp_path / "folder" / "train.parquet")
    return tmp_path


@pytest.mark.parametrize(("folder", "streaming"), [("saved", False), ("folder", False), ("folder", True)])
def test_datasets(
    folder: str, streaming: bool, rows: list[dict[str, Any]], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row by row, in spans unless streamed; names follow from the rows."""
    monkeypatch.setattr(hf_datasets, "PART_SIZE", 1000)
    (found,) = HF_DATASETS(str(saved / folder), streaming=streaming)
    of = found.source(Reading())
    spans = of.spans()
    assert spans == [WHOLE] if streaming else len(spans) > 5
    documents = [document for span in spans for document in of.read(span, Faults())]
    assert texts(documents) == [row["text"] for row in rows]
    assert documents[7].name == f"{folder}/train#7"
    assert [r.values for span in spans for r in of.records(span, Faults())] == rows
    with pytest.raises(UserError, match=r"\Adata.field: '.*' has no column 'body'; it has: text, n; .*=text\Z"):
        next(found.source(Reading(field="body")).read(spans[0], Faults("skip")))


def test_a_data_set_that_is_not_there_is_said_in_one_line(saved: Path) -> None:
    for path, split in ((saved / "folder", "test"), (saved / "gone", "train")):
        (found,) = HF_DATASETS(str(path), split=split)
        with pytest.raises(
            UserError, match=r"\Adata.path: the data set '[^\n]*' \(split \w+\) cannot be loaded [^\n]*\Z"
        ):
            found.source(Reading()).spans()


def test_an_array_is_what_pythons_parser_makes_of_it_wherever_pieces_end(tmp_path: Path) -> None:
    """Halves of surrogate pairs, escaped backslashes, what looks like an escape behind one, numbers, words: none is
    told otherwise for being cut in two; and an array that is none, or has no end, is told as such."""
    draw = random.Random(0)
    parts = ["\\\\", "\\n", '\\"', "\\ud800", "\\uDBFF", "\\udc00", "\\uD83D\\uDE00", "\\u4e2d", "ud800", "x", "é"]
    file = tmp_path / "a.json"
    for _ in range(200):
        values = [
            f'{{"a": "{"".join(draw.choices(parts, k=draw.randint(1, 8)))}", "b": [-12.5e3, true]}}' for _ in "12"
        ]
        text = f" [{values[0]} , {values[1]}] "
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compression, "_PIECE", draw.randint(1, 40))
            file.write_text(text)
            assert [record.values for record in source(file).records(WHOLE, Faults())] == json.loads(text)
            cut = draw.randrange(2, len(text) - 2)
            file.write_text(text[:cut])
            with pytest.raises(UserError, match=r"is cut off: its JSON has no end|is not JSON"):
                list(source(file).records(WHOLE, Faults()))
            faults = Faults("skip")
            left = [record.values for record in source(file).records(WHOLE, faults)]
            assert left == json.loads(text)[: len(left)]
            assert sum(faults.counts.values()) == 1


@pytest.mark.parametrize("content", ["[1, 2", "[12", "[1 2]", "[,]", "[1,]", "[1] 2", '["a": 1]', "[tru]", "[01]", ""])
def test_what_is_no_array_is_told_wherever_pieces_end(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text(content)
    for size in (1, 2, 3, 100):
        monkeypatch.setattr(compression, "_PIECE", size)
        faults = Faults("skip")
        assert list(source(tmp_path / "a.json").records(WHOLE, faults)) == []
        told = {kind: count for kind, count in faults.counts.items() if kind != "bad_json"}
        numbers = sum(character.isdigit() for character in content)
        assert told.get("cut_off", 0) + faults.counts.get("bad_json", 0) >= 1
        assert sum(faults.counts.values()) <= numbers + 1
