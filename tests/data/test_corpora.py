"""Which files make up a corpus."""

from __future__ import annotations

import hashlib
import shutil
import sysconfig
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from slm.data import corpora
from slm.data.corpora import code, find_files, python_stdlib, shakespeare_char, text
from slm.errors import UserError
from slm.registry import CORPORA

PATTERNS = ["*.txt", "*.md"]


def tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_each_is_found_by_its_name() -> None:
    found = {name: CORPORA.get(name) for name in ("text", "python_stdlib", "shakespeare_char")}
    assert found == {"text": text, "python_stdlib": python_stdlib, "shakespeare_char": shakespeare_char}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree, and in it the current folder."""
    root = tmp_path / ".hidden" / "corpus"
    names = ("b.txt", "a.md", "code.py", "sub/c.txt", "sub/deep/d.md", ".hidden.txt", ".git/e.txt", "sub/.f/g.md")
    tree(root, *names, "[1].txt", "odd.txt/h.bin")
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("code.py", ["code.py"]),
        (".hidden.txt", [".hidden.txt"]),
        ("[1].txt", ["[1].txt"]),
        (".", ["[1].txt", "a.md", "b.txt", "sub/c.txt", "sub/deep/d.md"]),
        ("sub", ["sub/c.txt", "sub/deep/d.md"]),
        ("*", ["[1].txt", "a.md", "b.txt", "code.py"]),
        ("**/*.md", ["a.md", "sub/deep/d.md"]),
        (["sub", "a.md", "*.md", "sub/c.txt"], ["a.md", "sub/c.txt", "sub/deep/d.md"]),
    ],
    ids=["file", "hidden file", "file like a glob", "folder", "lower folder", "glob", "deep glob", "list"],
)
def test_text_is_a_file_a_folder_a_glob_or_a_list(corpus: Path, path: str | list[str], found: list[str]) -> None:
    """Sorted, each once. A hidden file is one only by its own name or a folder's inside the corpus."""
    assert text(path, PATTERNS) == [Path(name) for name in found]
    absolute = str(corpus / path) if isinstance(path, str) else [str(corpus / one) for one in path]
    if path != "[1].txt":
        assert text(absolute, PATTERNS) == [corpus / name for name in found]


def test_the_home_folder_may_be_meant(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(corpus))
    assert text("~/sub", ["*.md"]) == [corpus / "sub/deep/d.md"]
    assert text("~/*.md", []) == [corpus / "a.md"]


@pytest.mark.parametrize(
    ("path", "patterns", "said"),
    [
        ("gone", PATTERNS, "data.path: there is no file or folder 'gone'; give a file, a folder or a glob"),
        (["a.md", "gone"], PATTERNS, "data.path: there is no file or folder 'gone'; give a file, a folder or a glob"),
        ("sub/*.rst", PATTERNS, "data.path: there is no file or folder 'sub/*.rst'; give a file, a folder or a glob"),
        (
            "sub",
            ["*.rst", "*.tex"],
            "data.path: the folder 'sub' holds no file that matches *.rst, *.tex (it holds 1 hidden, 1 .txt, 1 .md); "
            "add text files or set data.patterns",
        ),
        ("", PATTERNS, "data.path is empty; give a file, a folder (. is this one), a glob or a list of them"),
        (["a.md", ""], PATTERNS, "data.path is empty; give a file, a folder (. is this one), a glob or a list of them"),
        ([], PATTERNS, "data.path is an empty list; give a file, a folder, a glob or a list of them"),
    ],
    ids=["file", "in a list", "glob", "folder", "empty", "empty in a list", "empty list"],
)
def test_what_is_missing_is_said_in_one_line(
    corpus: Path, path: str | list[str], patterns: list[str], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        text(path, patterns)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("path", "patterns"), [("~no-such-user/x", PATTERNS), (".", ["/x"]), (".", [""])], ids=["user", "absolute", "empty"]
)
def test_what_pathlib_refuses_is_said_in_one_line(corpus: Path, path: str, patterns: list[str]) -> None:
    """RuntimeError, NotImplementedError and ValueError, a page of traceback each."""
    with pytest.raises(UserError, match=r"\Adata\.(path|patterns)[^\n]*\Z"):
        find_files(path, patterns)


def test_compressed_files_count_as_what_they_hold(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt", "b.txt.gz", "c.md.zst", "d.gz", "e.py.gz")
    assert text(str(tmp_path), PATTERNS) == [tmp_path / name for name in ("a.txt", "b.txt.gz", "c.md.zst")]


def test_code_is_told_by_its_ending_and_place(tmp_path: Path) -> None:
    """Installed packages are other people's, unless one of them is what is asked for."""
    root = tmp_path / "node_modules"
    tree(root, "a.py", "b.rs", "sub/c.c", "notes.txt", ".git/d.py", ".venv/lib/e.py", "sub/node_modules/f.py")
    assert code(str(root)) == [root / name for name in ("a.py", "b.rs", "sub/c.c")]
    assert code(str(root), ["python", "rust"]) == [root / name for name in ("a.py", "b.rs")]
    with pytest.raises(UserError, match=r"data.languages: 'pyton' is not known; did you mean 'python'\?"):
        code(str(root), ["pyton"])


def test_python_stdlib_is_source_without_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left out is so by its place inside the library: the library may itself lie in a folder `test`."""
    root = tmp_path / "test" / "site-packages"
    kept = ["json/decoder.py", "os.py", "tester.py"]
    left_out = ("test/a.py", "lib2to3/tests/a.py", "idlelib/idle_test/a.py", "site-packages/torch.py")
    tree(root, *kept, *left_out, "dist-packages/a.py", "lib-dynload/a.py", "json/__pycache__/a.py", "LICENSE.txt")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(root)})
    assert python_stdlib() == [root / name for name in kept]


def test_python_stdlib_is_this_interpreters() -> None:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = python_stdlib()
    assert root / "json" / "decoder.py" in files
    assert len(files) > 300


PLAY = b"First Citizen:\nBefore we proceed any further, hear me speak.\n"


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a server of our own gives `PLAY` once."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(PLAY)))
            self.end_headers()
            self.wfile.write(PLAY)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "*")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/input.txt"


def test_shakespeare_is_downloaded_once(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into a folder made for it; the second time the file is there, and nobody answers."""
    monkeypatch.setattr(corpora, "_SHAKESPEARE_SHA256", hashlib.sha256(PLAY).hexdigest())
    monkeypatch.setenv("HOME", str(tmp_path))
    for _ in range(2):
        (file,) = shakespeare_char(None, url, "~/downloads")
        assert file == tmp_path / "downloads" / "tinyshakespeare.txt"
        assert file.read_bytes() == PLAY
        url = "http://127.0.0.1:1/nobody"


def test_what_lies_in_the_place_of_shakespeare_is_checked(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that some network gave in place of the file, say: it was taken for the corpus ever after."""
    monkeypatch.setattr(corpora, "_SHAKESPEARE_SHA256", hashlib.sha256(PLAY).hexdigest())
    (tmp_path / "tinyshakespeare.txt").write_text("<html>please log in")
    (file,) = shakespeare_char(None, url, str(tmp_path))
    assert file.read_bytes() == PLAY


def test_another_text_is_not_taken_for_shakespeare(url: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"has the checksum .* expected 86c4e6aa.*; set data\.path to a copy of [^\n]*\Z"
    ):
        shakespeare_char(None, url, str(tmp_path))
    assert not (tmp_path / "tinyshakespeare.txt").exists()


def test_a_copy_of_shakespeare_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr("slm.fetch.download.download", no_network)
    file = tmp_path / "copy.txt"
    file.write_bytes(PLAY)
    assert shakespeare_char(str(file), "http://x", "downloads") == [file]
    assert shakespeare_char(str(tmp_path), "http://x", "downloads") == [file]
    with pytest.raises(UserError, match=r"\Adata\.path: there is no file or folder '[^\n]*gone\.txt'"):
        shakespeare_char(str(tmp_path / "gone.txt"), "http://x", "downloads")


@pytest.mark.parametrize("name", ["state.json", "dataset_dict.json"])
def test_a_saved_data_set_is_sent_to_its_kind(tmp_path: Path, name: str) -> None:
    """Of data=text it was said that no file matches *.txt, and data=jsonl read the description of its fields."""
    (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="is a data set that datasets saved; read it by data=datasets"):
        find_files(str(tmp_path), ["*.json"])


def test_the_folder_of_the_babylm_challenge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training folder of its size, dev and test beside; a data set's files by their names; never the other size."""
    for name in ("train_10M/a.train", "train_100M/b.train", "dev/a.dev", "test/a.test", "train_10M/README.md"):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_text("words")
    patterns = ["*.train", "*.dev", "*.test", "*.jsonl"]
    for size, file in (("10M", "a.train"), ("100M", "b.train")):
        found = CORPORA.get("babylm")(str(tmp_path / "all"), size, patterns)
        assert ([one.name for one in found], {part: len(of) for part, of in found.held.items()}) == (
            [file],
            {"val": 1, "test": 1},
        )
    (tmp_path / "hub").mkdir()
    for name in ("train-00000.jsonl", "validation.jsonl"):
        (tmp_path / "hub" / name).write_text('{"text": "words"}')
    found = CORPORA.get("babylm")(str(tmp_path / "hub"), "10M", patterns)
    assert ([one.name for one in found], list(found.held)) == (["train-00000.jsonl"], ["val"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corpora, "datasets", lambda path, **splits: [path, *splits])
    assert CORPORA.get("babylm")("BabyLM-community/Strict", "10M", patterns)[0] == "BabyLM-community/Strict"
    with pytest.raises(UserError, match="there is no file or folder 'all/trains'"):
        CORPORA.get("babylm")("all/trains", "10M", patterns)
    shutil.rmtree(tmp_path / "all/train_10M")
    with pytest.raises(UserError, match=r"holds train_100M, not train_10M; set data\.size"):
        CORPORA.get("babylm")(str(tmp_path / "all"), "10M", patterns)
