"""Forms in which text lies about: stories between separators, archives, crawls, tables, other encodings."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.data.config import CorpusConfig, Reading
from slm.data.corpora import text as text_corpus
from slm.data.documents.source import WHOLE, Document, Source, file_sources
from slm.data.faults import Faults
from slm.data.store.token_store import TokenStore
from slm.errors import UserError

CASES = Path(os.environ.get("SLM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")).parent / "cases" / "text"
FEW = settings(max_examples=40, deadline=None)
END = "<|endoftext|>"


def source(file: Path, **reading: Any) -> Source:
    return file_sources([file], Reading(**reading))[0]


def read(file: Path, faults: Faults | None = None, span_bytes: int | None = None, **reading: Any) -> list[Document]:
    of: Any = source(file, **reading)
    if span_bytes is not None:
        of.span_bytes = span_bytes
    return [document for span in of.spans() for document in of.read(span, faults or Faults())]


def texts(documents: list[Document]) -> list[str]:
    return [document.text for document in documents]


def joined(documents: list[Document]) -> list[str]:
    """Texts of those that may have come in parts."""
    whole: list[str] = []
    for document in documents:
        whole = [*whole, document.text] if document.begins else [*whole[:-1], whole[-1] + document.text]
    return whole


def put(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


# ---- separators ----

PIECES = ["a", "naïve ", "\n", "\r\n", "\n\n", f" {END} ", f"x{END}\n", f"{END}x\n", "</s>x", "a long word ", "🙂"]
stories = st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), max_size=12)


@given(stories=stories, span=st.sampled_from([24, 60, 1 << 20]), line_end=st.sampled_from(["\n", "\r\n", " \n"]))
@FEW
def test_stories_come_as_they_were_written_whatever_the_spans(
    tmp_path_factory: pytest.TempPathFactory, stories: list[str], span: int, line_end: str
) -> None:
    """Each is a document of its own, begun in one span, and it is the same compressed, where there are no spans.
    What only looks like the separator, within a line, is text."""
    file = put(tmp_path_factory.mktemp("stories") / "a.txt", f"\n{END}{line_end}".join(["first", *stories, "last"]))
    expected = ["first", *(story.strip("\r\n") for story in stories if story.strip()), "last"]
    faults = Faults()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slm.data.documents.text.TextFile.searched", 12)
        documents = read(file, faults, span_bytes=span)
        file.with_suffix(".txt.gz").write_bytes(gzip.compress(file.read_bytes()))
        again = read(file.with_suffix(".txt.gz"), span_bytes=span)
    assert joined(documents) == expected
    assert sum(document.ends for document in documents) == len(expected)
    assert len({document.name for document in documents}) == len(expected)
    assert [(d.text, d.begins, d.ends) for d in again] == [(d.text, d.begins, d.ends) for d in documents]
    assert faults.forms == {f"documents by the line '{END}'": len(expected)}
    assert faults.counts == {}


@pytest.mark.parametrize(
    ("separator", "content", "expected"),
    [
        ("auto", "one\n</s>\ntwo\n", ["one", "two"]),
        ("auto", f"{END}\none\n{END}", ["one"]),
        ("auto", f"one {END} two\n", [f"one {END} two\n"]),
        ("</s>", "one</s>two </s> \n\nthree\n</s>\n", ["one", "two ", "three"]),
        ("none", "one\n</s>\ntwo\n", ["one\n</s>\ntwo\n"]),
        ("***", "one\n***\n** *\n***\ntwo", ["one", "** *", "two"]),
        ("blank_lines", "\n\none\nmore\n \n\n\r\n\ntwo\n\n", ["one\nmore", "two"]),
        ("\n\n", "one\n\ntwo", ["one", "two"]),
        ("heading", " \n = A b = \n \n x \n = = Plot = = \n y \n = C = \n z\n", None),
        ("/# /", "# One\ntext # no\n\n# Two\n", ["# One\ntext # no", "# Two"]),
    ],
)
def test_what_divides_a_text_is_known_or_a_setting(
    separator: str, content: str, expected: list[str] | None, tmp_path: Path
) -> None:
    file = put(tmp_path / "a.txt", content)
    expected = expected or [" = A b = \n \n x \n = = Plot = = \n y ", " = C = \n z"]
    for span in (5, 1 << 20):
        assert joined(read(file, span_bytes=span, separator=separator)) == expected


def test_an_end_of_text_far_from_the_beginning_is_not_looked_for(tmp_path: Path) -> None:
    """A file of gigabytes is not read to find none; what is set holds."""
    file = put(tmp_path / "a.txt", "x\n" * (1 << 17) + f"{END}\ntwo\n")
    assert len(read(file)) == 1
    assert len(read(file, separator=END)) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (" \n = A = \n \n x\n \n = B = \n \n y\n", "data.separator=heading"),
        ("one</s>two</s>", "data.separator='</s>'"),
        ("one </s> \n\n = A = \n", None),
    ],
)
def test_what_might_divide_a_text_and_does_not_is_told(content: str, said: str | None, tmp_path: Path) -> None:
    file, faults = put(tmp_path / "a.txt", content), Faults()
    assert texts(read(file, faults)) == [content]
    assert [said in line for line in faults.lines()] == ([True] if said else [])


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        ({"separator": "/(/"}, "no regular expression"),
        ({"separator": "a\nb"}, "one line"),
        ({"separator": ""}, "1 to 200 characters"),
        ({"encoding": "utf-9"}, "did you mean 'utf-8'"),
        ({"encoding": "base64"}, "no encoding 'base64'"),
        ({"delimiter": "ab"}, "one character"),
    ],
)
def test_a_setting_that_is_none_is_refused_before_any_work(reading: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=rf"\Adata: [^\n]*{said}[^\n]*\Z"):
        CorpusConfig.from_dict({"kind": "text", "cache_dir": "x", "path": "x", "patterns": ["*"], **reading})


# ---- compressed files, archives ----


def packed_tar(files: dict[str, bytes], **kinds: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.txt"
            archive.addfile(info)
    return out.getvalue()


def packed_zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def zstd(raw: bytes) -> bytes:
    return bytes(pytest.importorskip("backports.zstd").compress(raw))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}
NOISE = "".join(random.Random(0).choices("abcdefgh ", k=40_000)).encode()


@pytest.mark.parametrize("ending", PACKERS)
def test_compressed_files_in_several_parts_are_read_whole(ending: str, tmp_path: Path) -> None:
    pack = PACKERS[ending]
    file = put(tmp_path / f"a.txt{ending.upper()}", pack(NOISE[:100]) + pack(NOISE[100:]))
    assert texts(read(file)) == [NOISE.decode()]


@pytest.mark.parametrize("ending", PACKERS)
def test_what_is_damaged_is_told_and_what_comes_before_it_kept(ending: str, tmp_path: Path) -> None:
    raw = PACKERS[ending](NOISE)
    for content, kind in ((raw[: len(raw) // 2], "cut_off"), (b"no such thing" * 10, "unreadable")):
        file = put(tmp_path / f"a.txt{ending}", content)
        with pytest.raises(UserError, match=r"\Adata\.path: '[^\n]*a\.txt[^\n]*' is (cut off|damaged)[^\n]*\Z"):
            read(file)
        faults = Faults("skip")
        assert NOISE.decode().startswith("".join(texts(read(file, faults))))
        assert faults.counts == {kind: 1}


def far_window(raw: bytes) -> bytes:
    """A frame of zstd that says it looks back 2 GiB, of one block that is not compressed."""
    return b"\x28\xb5\x2f\xfd\x00\xa8" + (len(raw) << 3 | 1).to_bytes(3, "little") + raw


def test_zstd_may_look_back_two_gigabytes(tmp_path: Path) -> None:
    """As dumps made with --long=31 do; it was called damaged. Without so much memory that is said."""
    pytest.importorskip("backports.zstd")
    file = put(tmp_path / "a.txt.zst", far_window(b"far away"))
    assert texts(read(file)) == ["far away"]
    program = (
        "import resource, sys; from pathlib import Path; from slm.data.documents.compression import pieces\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); print(*pieces(Path(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=False)
    assert "looks back up to 2 GiB (zstd --long), for which there is no memory" in done.stderr.splitlines()[-1]


FILES = {
    "set/b.txt": b"two",
    "set/A.TXT": b"one",
    "set/c.jsonl": b'{"text": "three"}\n{"text": "four"}\n',
    "d.txt.gz": gzip.compress(b"five"),
    "e": NOISE,
}
OTHERS = {
    "set/.hidden.txt": b"x",
    "__MACOSX/set/b.txt": b"x",
    "image.png": b"\x89PNG\0\0",
    "in.zip": packed_zip({"a.txt": b"x"}),
    "p.parquet": b"PAR1\0",
}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz", "a.txz", *(f"a.tar{ending}" for ending in PACKERS)])
@pytest.mark.parametrize("span", [1, 1 << 20])
def test_the_files_of_an_archive_are_read_as_if_they_lay_there(name: str, span: int, tmp_path: Path) -> None:
    """By their own names and endings, in the archive's order; what is no text is passed over and counted."""
    files = FILES | OTHERS
    raw = packed_zip(files) if name == "a.zip" else packed_tar(files, link=tarfile.SYMTYPE, folder=tarfile.DIRTYPE)
    pack = PACKERS.get(Path(name).suffix, {"a.tgz": gzip.compress, "a.txz": lzma.compress}.get(name, bytes))
    file, faults = put(tmp_path / name, pack(raw)), Faults()
    documents = read(file, faults, span_bytes=span)
    assert texts(documents) == ["two", "one", "three", "four", "five", NOISE.decode()]
    assert [document.name for document in documents][:4] == [
        f"{name}/set/b.txt",
        f"{name}/set/A.TXT",
        f"{name}/set/c.jsonl@0",
        f"{name}/set/c.jsonl@18",
    ]
    assert faults.counts == {"passed_over": len(OTHERS) + (name != "a.zip")}
    assert faults.forms == {"files of archives": len(FILES)}


def test_records_of_an_archive(tmp_path: Path) -> None:
    file = put(tmp_path / "a.tar", packed_tar({"c.jsonl": FILES["set/c.jsonl"], "d.json": b'[{"text": "five"}]'}))
    found = list(source(file).records(WHOLE, Faults()))
    assert [record.values["text"] for record in found] == ["three", "four", "five"]
    assert [record.place for record in found] == ["/c.jsonl@0", "/c.jsonl@18", "/d.json#0"]


def encrypted(raw: bytes) -> bytes:
    """With the first file marked so, in its own header and in the list of all."""
    changed = bytearray(raw)
    changed[6] |= 1
    changed[raw.index(b"PK\1\2") + 8] |= 1
    return bytes(changed)


def flipped(raw: bytes, what: bytes) -> bytes:
    place = raw.index(what)
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


LARGE = {"a.txt": b"first " * 100, "b.txt": NOISE * 40, "c.txt": b"last"}
STORED = io.BytesIO()
with zipfile.ZipFile(STORED, "w") as stored:
    for inside, content in LARGE.items():
        stored.writestr(inside, content)

# name, content, fault, how many files are read whole
DAMAGED: dict[str, tuple[str, bytes, str, int]] = {
    "zip without an end": ("a.zip", packed_zip(LARGE)[:-100], "unreadable", 0),
    "zip with a wrong sum": ("a.zip", flipped(STORED.getvalue(), NOISE[:20]), "unreadable", 2),
    "encrypted": ("a.zip", encrypted(packed_zip(LARGE)), "unreadable", 2),
    "no zip": ("a.zip", b"plain text", "unreadable", 0),
    "tar cut off": ("a.tar", packed_tar(LARGE)[:100_000], "unreadable", 1),
    "tar with a bad header": ("a.tar", flipped(packed_tar(LARGE), b"b.txt"), "unreadable", 1),
    "no tar": ("a.tar", b"plain text" * 100, "unreadable", 0),
    "tar.gz cut off": ("a.tar.gz", gzip.compress(packed_tar(LARGE))[:100_000], "cut_off", 1),
    "no tar.gz": ("a.tgz", b"plain text" * 100, "unreadable", 0),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_damaged_archive_is_told_once_and_the_rest_of_it_read(fault: str, tmp_path: Path) -> None:
    """tarfile takes a damaged header for the end, and says nothing."""
    name, content, kind, whole = DAMAGED[fault]
    file, faults = put(tmp_path / name, content), Faults("skip")
    with pytest.raises(UserError, match=rf"\Adata\.path: [^\n]*{name}[^\n]*data\.on_bad=skip[^\n]*\Z"):
        read(file)
    documents = read(file, faults)
    assert sum(document.text.encode() in LARGE.values() for document in documents) >= whole
    assert faults.counts == {kind: 1}


# ---- crawls ----


def warc_record(kind: str, content: bytes, content_type: str, length: int | None = None) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://example.org/\r\n"
        f"WARC-Record-ID: <urn:uuid:0>\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(content) if length is None else length}\r\n\r\n"
    )
    return head.encode() + content + b"\r\n\r\n"


def page(body: str, status: str = "200 OK", charset: str = "utf-8") -> bytes:
    html = f"<html><head><title>t</title></head><body><script>no()</script><p>{body}</p></body></html>"
    return f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset={charset}\r\n\r\n".encode() + html.encode(charset)


INFO = warc_record("warcinfo", b"Software: x\r\n", "application/warc-fields")
WET = [INFO, *(warc_record("conversion", text.encode(), "text/plain") for text in ("one\nmore", "zwei: ü", "three"))]


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_a_document_a_record_of_a_crawl(ending: str, tmp_path: Path) -> None:
    """Compressed each by itself, as they are published, or all together."""
    pytest.importorskip("warcio")
    for parts in (WET, [b"".join(WET)]):
        content = b"".join(PACKERS[ending](part) if ending else part for part in parts)
        faults = Faults()
        documents = read(put(tmp_path / f"a.warc.wet{ending}", content), faults)
        assert texts(documents) == ["one\nmore", "zwei: ü", "three"]
        assert documents[0].name == f"a.warc.wet{ending}#1"
        assert faults.counts == {"no_page": 1}
        assert faults.forms == {"pages and texts of WARC files": 3}


def test_pages_are_read_by_switch(tmp_path: Path) -> None:
    pytest.importorskip("warcio")
    http = "application/http; msgtype=response"
    records = [
        INFO,
        warc_record("request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "application/http; msgtype=request"),
        warc_record("response", page("The café is open."), http),
        warc_record("response", page("Gone.", status="404 Not Found"), http),
        warc_record("response", page("Über", charset="latin-1"), http),
    ]
    file, faults = put(tmp_path / "a.warc.gz", b"".join(map(gzip.compress, records))), Faults()
    assert read(file, faults) == []
    assert faults.counts == {"page": 2, "no_page": 3}
    assert any("data.html=true" in line for line in faults.lines())
    pytest.importorskip("resiliparse")
    assert [text.strip() for text in texts(read(file, html=True))] == ["The café is open.", "Über"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"".join(WET)[:-9], "cut_off"),
        (gzip.compress(b"".join(WET))[:-20], "cut_off"),
        (b"".join([*WET[:2], warc_record("conversion", b"some text", "text/plain", length=3), *WET[2:]]), "unreadable"),
        (b"".join([*WET[:2], b"no header at all\r\n"]), "unreadable"),
        (b"".join([*WET[:2], b"WARC/1.0\r\n", b"x" * (3 << 20)]), "too_long"),
        (
            b"".join([*WET[:2], b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 5\r\n\r\nHTTP\r\n\r\n"]),
            "unreadable",
        ),
    ],
    ids=["cut off", "gzip cut off", "wrong length", "no record", "headers without end", "no address"],
)
def test_a_damaged_crawl_is_told(content: bytes, kind: str, tmp_path: Path) -> None:
    """warcio passes over most of it."""
    pytest.importorskip("warcio")
    file = put(tmp_path / f"a.wet{'.gz' if content[:1] == bytes([31]) else ''}", content)
    with pytest.raises(UserError, match=r"\Adata\.path: '[^\n]*a\.wet[^\n]*\Z"):
        read(file)
    faults = Faults("skip")
    assert texts(read(file, faults))[:1] == ["one\nmore"]
    assert {key: count for key, count in faults.counts.items() if key != "no_page"} == {kind: 1}


# ---- tables ----

cells = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@given(rows=st.lists(st.tuples(cells, cells), max_size=8), ending=st.sampled_from([".csv", ".tsv", ".csv.gz"]))
@FEW
def test_a_table_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], ending: str
) -> None:
    """Quotes, delimiters and line ends within a value too. (csv reads every kind of line end in a value as it is.)"""
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t" if ending == ".tsv" else ",", quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "text"), *rows])
    raw = out.getvalue().encode()
    file = put(tmp_path_factory.mktemp("table") / f"a{ending}", gzip.compress(raw) if ending.endswith("gz") else raw)
    found = [record.values for record in source(file).records(WHOLE, Faults())]
    assert found == [{"id": a, "text": b} for a, b in rows]


def test_the_column_the_delimiter_and_the_header_are_settings_or_told(tmp_path: Path) -> None:
    file, faults = put(tmp_path / "a.csv", '\ufeffn;body;x\n1;"one; ""two""\nmore";y\n\n2;three;z\n'), Faults()
    with pytest.raises(UserError, match=r"data.field: '.*a.csv' has no column 'text'; it has: n, body, x; .*=body\Z"):
        read(file, Faults("skip"))
    assert texts(read(file, faults, field="body")) == ['one; "two"\nmore', "three"]
    assert faults.forms == {"rows of tables divided by ';', of which 'body' is read": 2}
    plain = put(tmp_path / "b.csv", "1,World,A title\n2,Sports,Another one\n")
    assert texts(read(plain, header=["label", "topic", "text"])) == ["A title", "Another one"]
    assert texts(read(put(tmp_path / "c.txt", "text~n\nx,y~1\n"), format="csv", delimiter="~")) == ["x,y"]


@pytest.mark.parametrize(
    ("bad", "kind", "left"),
    [
        (b"1,two,three\n", "bad_csv", 4),
        (b'1,"open\n', "bad_csv", 2),
        (b'1,"a"b\n', "bad_csv", 4),
        (b"1," + b"x" * 2000 + b"\n", "too_long", 4),
        (b'1,"' + b"x\n" * 2000 + b'"\n', "too_long", 2),
        (b"1,caf\xe9\n", "not_utf8", 4),
        (b"1,\n", "empty", 4),
    ],
)
def test_a_bad_row_is_told(bad: bytes, kind: str, left: int, tmp_path: Path) -> None:
    """A quote that never ends takes all that follows; strictly read, csv says so."""
    good = [b"1,one\n", b"2,two\n", b"3,three\n", b"4,four\n"]
    file = put(tmp_path / "a.csv", b"n,text\n" + b"".join([*good[:2], bad, *good[2:]]))
    if kind != "empty":
        with pytest.raises(UserError, match=r"\Adata\.path: [^\n]*a\.csv[^\n]*\Z"):
            read(file, max_record_bytes=1000)
    faults = Faults("skip")
    assert texts(read(file, faults, max_record_bytes=1000)) == ["one", "two", "three", "four"][:left]
    assert faults.counts == {kind: 1}


# ---- encodings ----

FRENCH = "L’été dernier, la forêt était déjà très sèche — peut-être à cause du vent. Ça coûte 5 €.\n" * 3
RUSSIAN = "Привет, мир. Это небольшой текст о погоде и людях.\n" * 5
CHINESE = "今天天气很好，我们去公园散步。孩子们在草地上玩耍。\n" * 4
WRITTEN = [
    ("utf-16", FRENCH),
    ("utf-16-le", "Plain words, one after another.\n"),
    ("utf-32", FRENCH),
    ("cp1252", FRENCH),
    ("latin-1", "Der Fluß ist groß und schön.\n"),
    ("cp1251", RUSSIAN),
    ("koi8-r", RUSSIAN),
    ("gb18030", CHINESE),
]


@pytest.mark.parametrize(("encoding", "text"), WRITTEN)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_text_in_other_encodings(encoding: str, text: str, ending: str, tmp_path: Path) -> None:
    """By their name, or found out and told."""
    raw = ("ASCII at first.\n" + text).encode(encoding)
    file = put(tmp_path / f"a.txt{ending}", gzip.compress(raw) if ending else raw)
    assert texts(read(file, encoding=encoding)) == ["ASCII at first.\n" + text]
    pytest.importorskip("charset_normalizer")
    faults = Faults()
    assert texts(read(file, faults, encoding="auto")) == ["ASCII at first.\n" + text]
    assert [form.startswith("files read as ") for form in faults.forms] == [True]


def test_records_and_stories_in_other_encodings(tmp_path: Path) -> None:
    stories = put(tmp_path / "a.txt", f"été\n{END}\nforêt\n".encode("utf-16"))
    assert texts(read(stories, encoding="utf-16")) == ["été", "forêt"]
    for name, content in (
        ("a.jsonl", '{"text": "été"}\n{"text": "forêt"}\n'),
        ("a.json", '[{"text": "été"}, {"text": "forêt"}]'),
        ("b.json", '{"text": "été"}\n{"text": "forêt"}\n'),
        ("a.csv", "text\nété\nforêt\n"),
    ):
        assert texts(read(put(tmp_path / name, content.encode("utf-16")), encoding="utf-16")) == ["été", "forêt"]
        assert texts(read(put(tmp_path / name, content.encode("cp1252")), encoding="cp1252")) == ["été", "forêt"]


def test_utf_8_with_a_bad_byte_is_not_another_encoding(tmp_path: Path) -> None:
    file = put(tmp_path / "a.txt", FRENCH.encode() + b"\xff")
    with pytest.raises(UserError, match=r"is not UTF-8 text"):
        read(file, encoding="auto")
    assert texts(read(put(tmp_path / "b.txt", FRENCH), encoding="auto")) == [FRENCH]


@pytest.mark.parametrize(
    ("encoding", "content", "fault"),
    [
        ("cp1252", b"word \x81 word", "not_utf8"),
        ("utf-16", "word".encode("utf-16")[:-1], "not_utf8"),
        ("cp1252", b"word\0word", "nul"),
    ],
)
def test_what_is_no_text_in_the_named_encoding_is_a_fault(
    encoding: str, content: bytes, fault: str, tmp_path: Path
) -> None:
    file, faults = put(tmp_path / "a.txt", content), Faults("replace")
    with pytest.raises(UserError, match=r"\Adata\.path: '[^\n]*a\.txt' is (not (CP1252|UTF-16) text|binary)"):
        read(file, encoding=encoding)
    assert "\ufffd" in read(file, faults, encoding=encoding)[0].text
    assert faults.counts == {fault: 1}


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv"])
def test_replacing_never_fills_a_document(name: str, tmp_path: Path) -> None:
    """65 kB of U+FFFD were trained on, from a file in UTF-16."""
    text = json.dumps([{"text": RUSSIAN}], ensure_ascii=False).encode("cp1251")
    content = {
        "a.txt": RUSSIAN.encode("utf-16"),
        "a.jsonl": text[1:-1],
        "a.json": text,
        "a.csv": b'text\n"' + RUSSIAN.encode("cp1251") + b'"\n',
    }
    faults = Faults("replace")
    assert texts(read(put(tmp_path / name, content[name]), faults)) == []
    assert faults.counts["replaced"] == 1
    assert any("data.encoding=auto" in line for line in faults.lines())


# ---- fields ----


def test_a_field_may_lie_inside_others(tmp_path: Path) -> None:
    rows = [{"id": i, "data": {"text": f"text {i}", "n": [i]}, "a.b": f"x{i}"} for i in range(3)]
    lines = put(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    files = [lines, put(tmp_path / "a.json", json.dumps(rows))]
    if pytest.importorskip("pyarrow"):
        import pyarrow as pa
        import pyarrow.parquet

        pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
        files.append(tmp_path / "a.parquet")
    for file in files:
        assert texts(read(file, field="data.text")) == ["text 0", "text 1", "text 2"]
        assert texts(read(file, field="a.b")) == ["x0", "x1", "x2"]
        with pytest.raises(UserError, match=r"no field 'data.body'.*; its text is in data\.field=data\.text\)"):
            read(file, field="data.body")
    chats = put(tmp_path / "b.jsonl", json.dumps({"turns": [{"content": "hello"}]}))
    assert texts(read(chats, field="turns.0.content")) == ["hello"]


def test_the_field_that_holds_the_text_is_offered(tmp_path: Path) -> None:
    """Only where one is far longer than all others."""
    file = put(tmp_path / "a.jsonl", json.dumps({"id": "x1", "content": "some long text", "meta": {"url": "u"}}))
    with pytest.raises(UserError, match=r"\(fields: 'id', 'content', 'meta'; its text is in data\.field=content\)"):
        read(file)
    unclear = put(tmp_path / "b.jsonl", json.dumps({"question": "some long text", "answer": "another text"}))
    with pytest.raises(UserError, match=r"\(fields: 'question', 'answer'\);"):
        read(unclear)
    deep: dict[str, Any] = {"x": "text"}
    for _ in range(400):
        deep = {"in": deep}
    with pytest.raises(UserError, match=r"\(fields: 'in'\);"):
        read(put(tmp_path / "c.jsonl", json.dumps(deep)))


# ---- folders ----


def test_what_a_folder_holds_beside_its_texts_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "corpus"
    for name in ("a.TXT", "b.txt", "sub/c.Txt.GZ", "d.csv", "e.csv", "f", ".git/x.txt", ".g.txt", "sub/.h/i.txt"):
        put(root / name, "x")
    put(tmp_path / "elsewhere" / "z.txt", "x")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    found = text_corpus(str(root), ["*.txt"])
    assert [file.relative_to(root).as_posix() for file in found] == ["a.TXT", "b.txt", "sub/c.Txt.GZ"]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    for part in ("2 .txt", "1 .gz", "passed over", "2 .csv", "1 without ending", "3 hidden", "1 linked folder"):
        assert part in told
    with pytest.raises(UserError, match=r"matches \*\.rst \(it holds [^\n]*2 \.csv"):
        text_corpus(str(root), ["*.rst"])


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**/*.txt", ["a.txt", "x/b.txt", "x/y/c.txt"]),
        ("x/*.txt", ["x/b.txt"]),
        ("x/**/*.txt", ["x/b.txt", "x/y/c.txt"]),
        ("[ab].txt", ["a.txt", "x/b.txt"]),
    ],
)
def test_patterns_are_those_of_pathlib(pattern: str, found: list[str], tmp_path: Path) -> None:
    for name in ("a.txt", "x/b.txt", "x/y/c.txt"):
        put(tmp_path / name, "x")
    assert [file.relative_to(tmp_path).as_posix() for file in text_corpus(str(tmp_path), [pattern])] == found
    assert sorted(tmp_path.rglob(pattern)) == [tmp_path / name for name in found]


# ---- as a command ----


def test_slm_prepare_tells_how_the_text_was_read(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    """And each story ends with an end of text."""
    put(tmp_path / "stories" / "a.txt", f"\n{END}\n".join(f"story {i} of some length" for i in range(20)))
    put(tmp_path / "stories" / "b.png", "x")
    outcome = run_cli("prepare", "data=text", "data.path=stories", "tokenizer=byte", "out=store", "num_processes=1")
    assert outcome.status == 0, outcome.err
    told = outcome.err.splitlines()
    assert f"data: 20 documents by the line '{END}'" in told
    assert "data: of the folder 'stories' 1 .txt; passed over 1 .png" in told
    store = TokenStore.open(tmp_path / "store")
    assert (
        sum(int((np.asarray(store.tokens(split)) == store.tokenizer.eos_id).sum()) for split in ("train", "val")) == 20
    )
    put(tmp_path / "a.csv", "id,body\n" + "".join(f'{i},"some text, {i}"\n' for i in range(20)))
    outcome = run_cli("prepare", "data=csv", "data.path=a.csv", "tokenizer=byte", "out=table", "num_processes=1")
    assert outcome.status == 2
    assert "it has: id, body; the only one with text is data.field=body" in outcome.err
    outcome = run_cli("prepare", "data=csv", "data.path=a.csv", "data.field=body", "tokenizer=byte", "out=table")
    assert outcome.status == 0, outcome.err
    assert "data: 20 rows of tables divided by ',', of which 'body' is read" in outcome.err


# ---- files that came up in practice ----


@pytest.mark.parametrize(
    ("name", "reading", "n_documents"),
    [
        ("tinystories/TinyStoriesV2-GPT4-train.txt", {}, 400),
        ("tinystories/TinyStoriesV2-GPT4-valid.txt", {}, 40),
        ("wikitext-103-raw/wiki.train.raw", {"separator": "heading"}, 200),
        ("c.txt.bz2", {}, 1),
        ("c.txt.xz", {}, 1),
        ("long31_stdin.txt.zst", {}, 1),
        ("CC-MAIN-00000.warc.wet.gz", {}, 100),
        ("t.csv", {}, 100),
    ],
)
def test_files_of_practice(name: str, reading: dict[str, Any], n_documents: int) -> None:
    if not (CASES / name).is_file():
        pytest.skip(f"{CASES / name} is not there")
    for module in {".zst": ["backports.zstd"], ".gz": ["warcio"]}.get(Path(name).suffix, []):
        pytest.importorskip(module)
    assert len(read(CASES / name, **reading)) == n_documents
