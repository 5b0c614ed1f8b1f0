"""Text to token store: the same bits by any number of processes, after any kill; what is left out is counted."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from small_store import split_documents

from slm.data.config import CorpusConfig, Filters
from slm.data.documents.source import Document
from slm.data.documents.text import TextFile
from slm.data.store import scan, shard
from slm.data.store.find import prepare_store
from slm.data.store.processes import Processes, Report, StoppedError
from slm.errors import UserError

BPE = {"kind": "bpe", "vocab_size": 300}
BYTE = {"kind": "byte"}
UNIT_BYTES = 4000
TEST_FOLDERS = [str(folder) for folder in Path(__file__).parents[:2]]
"""Where this file and what it imports lie, for programs of its own."""


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes make a shard."""
    monkeypatch.setattr(scan, "UNIT_BYTES", UNIT_BYTES)


def write_texts(folder: Path, n: int = 40, words: int = 200, seed: int = 0) -> Path:
    draw = random.Random(seed)
    folder.mkdir()
    for i in range(n):
        text = " ".join(draw.choice(("sea", "ship", "wind", "naïve", "sail 🙂", "the", "of")) for _ in range(words))
        (folder / f"{i:03d}.txt").write_text(f"{text}\n", encoding="utf-8")
    return folder


def corpus_of(folder: Path, **settings: Any) -> CorpusConfig:
    values = {"kind": "text", "cache_dir": str(folder / "cache"), "path": str(folder), "patterns": ["*.txt"]}
    return CorpusConfig.from_dict({**values, **settings})


def contents(store: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(store.iterdir())}


def hidden(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("."))


@pytest.mark.usefixtures("small_units")
def test_any_number_of_processes_writes_the_same(tmp_path: Path) -> None:
    """And one shard holds the very tokens of many."""
    corpus = corpus_of(write_texts(tmp_path / "text"), val_fraction=0.2)
    stores = [prepare_store(corpus, BPE, tmp_path / str(n), n) for n in (1, 2, 4)]
    assert len(stores[0].meta["train"]["shards"]) > 4
    assert contents(stores[0].folder) == contents(stores[1].folder) == contents(stores[2].folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "UNIT_BYTES", 10**9)
        whole = prepare_store(corpus, BPE, tmp_path / "whole", 2)
    for split in ("train", "val"):
        assert len(whole.meta[split]["shards"]) == 1
        assert np.array_equal(stores[0].tokens(split), whole.tokens(split))
    assert hidden(tmp_path) == []


@pytest.mark.usefixtures("small_units")
def test_shards_are_read_as_one_array(tmp_path: Path) -> None:
    tokens = prepare_store(corpus_of(write_texts(tmp_path / "text")), BYTE, tmp_path / "store", 1).tokens("train")
    whole = np.asarray(tokens)
    assert len(whole) == len(tokens)
    where = np.random.default_rng(0).integers(0, len(tokens), (7, 31))
    assert (tokens[where] == whole[where]).all()
    ends = np.array([0, len(tokens) - 1])
    assert (tokens[ends] == whole[ends]).all()


def test_a_single_text_over_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts are read by different processes; it begins once, ends never, and its last tenth is held out."""
    monkeypatch.setattr(scan, "UNIT_BYTES", 3000)
    monkeypatch.setattr(TextFile, "span_bytes", 1500)
    text = " ".join(str(i) for i in range(4000))
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text(text)
    store = prepare_store(corpus_of(folder), BYTE, tmp_path / "store", 1)
    cut = int(len(text) * 0.9)
    assert bytes(np.asarray(store.tokens("train")).tolist()).decode() == text[:cut]
    assert bytes(np.asarray(store.tokens("val")).tolist()).decode() == text[cut:]
    assert len(store.meta["train"]["shards"]) > 3
    assert [store.meta[split]["documents"] for split in ("train", "val")] == [1, 1]


PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import test_pipeline
from slm.data.store import scan
scan.UNIT_BYTES = test_pipeline.UNIT_BYTES
from slm.data.store.find import prepare_store
corpus = test_pipeline.corpus_of(Path({text!r}), val_fraction=0.2, dedupe=True)
prepare_store(corpus, test_pipeline.BPE, Path({out!r}), 2)
"""


@pytest.mark.nightly
def test_killed_at_any_moment_it_goes_on(tmp_path: Path, small_units: None) -> None:
    """SIGKILL of the whole tree, at moments spread over a run; each start gets a little further or finishes."""
    text = write_texts(tmp_path / "text", n=120)
    expected = contents(
        prepare_store(corpus_of(text, val_fraction=0.2, dedupe=True), BPE, tmp_path / "whole", 1).folder
    )
    out = tmp_path / "killed"
    program = PROGRAM.format(path=TEST_FOLDERS, text=str(text), out=str(out))
    whole_s = 60.0
    for attempt in range(2):  # the first writes bytecode in a fresh checkout: kills timed by it alone came too late
        timed = PROGRAM.format(path=TEST_FOLDERS, text=str(text), out=str(tmp_path / f"timed{attempt}"))
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", timed], check=True, capture_output=True)
        whole_s = min(whole_s, time.monotonic() - began)
    draw = random.Random(0)
    n_killed = 0
    for _ in range(40):
        process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, stderr=subprocess.PIPE)
        try:
            _, said = process.communicate(timeout=60 if n_killed >= 5 else draw.uniform(0.3, 0.9) * whole_s)
            assert process.returncode == 0, said
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            n_killed += 1
    assert n_killed
    assert contents(out) == expected
    assert hidden(tmp_path) == []


@pytest.mark.usefixtures("small_units")
def test_finished_shards_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a full disk says so in one line; nothing half-made stands at the place."""
    corpus = corpus_of(write_texts(tmp_path / "text"))
    expected = contents(prepare_store(corpus, BPE, tmp_path / "whole", 1).folder)
    made: list[int] = []
    write = shard.write_shard

    def write_four(folder: Path, number: int, *rest: Any) -> Any:
        if len(made) == 4:
            raise OSError(28, "No space left on device")
        made.append(number)
        return write(folder, number, *rest)

    monkeypatch.setattr(shard, "write_shard", write_four)
    out = tmp_path / "store"
    with pytest.raises(StoppedError, match=r"\Amaking '[^\n]*store' broke off \(No space left on device\); [^\n]*\Z"):
        prepare_store(corpus, BPE, out, 1)
    assert not out.exists()
    assert len(hidden(tmp_path)) == 1
    monkeypatch.setattr(shard, "write_shard", lambda *a: (made.append(a[1]), write(*a))[1])
    assert contents(prepare_store(corpus, BPE, out, 1).folder) == expected
    assert sorted(made) == list(range(len(made))), "each once"
    assert hidden(tmp_path) == []


@pytest.mark.usefixtures("small_units")
def test_what_was_begun_with_other_settings_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = corpus_of(write_texts(tmp_path / "text"))
    with monkeypatch.context() as patch:
        patch.setattr(shard, "write_shard", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(StoppedError):
            prepare_store(corpus, BPE, tmp_path / "store", 1)
    (begun,) = hidden(tmp_path)
    store = prepare_store(corpus, BYTE, tmp_path / "store", 1)
    assert f"removed '{tmp_path / begun}', begun from other text or with other settings" in capsys.readouterr().err
    assert contents(store.folder) == contents(prepare_store(corpus, BYTE, tmp_path / "clean", 1).folder)
    assert hidden(tmp_path) == []


def test_duplicates_and_lengths_are_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of equal ones stays, also where they lie in different shards; the lengths are in characters."""
    folder = tmp_path / "text"
    folder.mkdir()
    texts = ["same " * 9, "ü" * 20, "short", "same " * 9, "x" * 200, "other " * 9, "ü" * 20, "same " * 9, "third " * 9]
    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_text(text, encoding="utf-8")
    monkeypatch.setattr(scan, "UNIT_BYTES", 60)
    for n in (1, 3):
        corpus = corpus_of(folder, dedupe=True, min_chars=6, max_chars=199, val_fraction=0.3)
        store = prepare_store(corpus, BYTE, tmp_path / f"store{n}", n)
        card = json.loads((store.folder / "data_card.json").read_text())
        assert card["dropped"] == {"empty": 0, "too_short": 1, "too_long": 1, "duplicates": 3}
        assert card["train"]["documents"] + card["val"]["documents"] == 4
        text = store.tokenizer.decode([*np.asarray(store.tokens("train")), *np.asarray(store.tokens("val"))])
        assert sorted(text) == sorted("".join(texts[i] for i in (0, 1, 5, 8)))
    plain = prepare_store(corpus_of(folder), BYTE, tmp_path / "plain", 1)
    assert sum(plain.meta[split]["documents"] for split in ("train", "val")) == 9
    with pytest.raises(UserError, match=r"\Adata: no document is left \(too short: 9\); change data.min_chars"):
        prepare_store(corpus_of(folder, min_chars=1000), BYTE, tmp_path / "none", 1)
    assert hidden(tmp_path) == []


def test_the_first_of_equal_documents_stays() -> None:
    """Also of long ones, which are compared part by part; equal parts of unequal documents are none of its business."""
    whole = [Document(name, text) for name, text in (("a", "one"), ("b", "two"), ("c", "one"), ("d", "three"))]
    long = [
        Document(name, text, begins=i == 0, ends=i == 1)
        for name, texts in (("e", "12"), ("f", "13"), ("g", "12"), ("h", "21"))
        for i, text in enumerate(texts)
    ]
    split = split_documents([*whole, *long], 0.2, Filters(dedupe=True))
    kept = sorted(document.name for document in (*split.train, *split.val))
    assert kept == ["a", "b", "d", "e", "e", "f", "f", "h", "h"]


def test_the_card_names_sources_by_what_they_hold(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "text", n=3)
    store = prepare_store(corpus_of(folder), BYTE, tmp_path / "store", 1)
    card = json.loads((store.folder / "data_card.json").read_text())
    raw = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {one["name"]: (one["bytes"], one["sha256"], one["documents"]) for one in card["sources"]} == {
        name: (len(content), hashlib.sha256(content).hexdigest(), 1) for name, content in raw.items()
    }
    assert card["bytes_per_token"] == sum(map(len, raw.values())) / (sum(map(len, raw.values())) + 3)
    assert "| `000.txt` |" in (store.folder / "README.md").read_text()


class Number:
    """A task: says its number, or fails."""

    def __init__(self, number: int, fails: str = "") -> None:
        self.number = number
        self.fails = fails

    def run(self, report: Report) -> tuple[int, int]:
        print("to stdout, which carries results")
        if self.fails == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fails:
            time.sleep(0.2 if self.fails == "late" else 0)
            raise UserError(f"number {self.number}")
        report(10)
        return self.number, os.getpid()


def workers(of: psutil.Process) -> set[psutil.Process]:
    """Its processes but for those that only look after what others leave behind."""
    return {child for child in of.children() if "resource_tracker" not in " ".join(child.cmdline())}


def test_tasks_are_spread_and_what_fails_first_is_raised() -> None:
    """By their order, not by the clock: the same message with any number of processes."""
    told: list[int] = []
    others = workers(psutil.Process())  # that another test left
    with Processes(2) as pool:
        results = dict(pool.run([Number(i) for i in range(20)], told.append))
        assert [results[i][0] for i in range(20)] == list(range(20))
        assert os.getpid() not in {pid for _, pid in results.values()}
        assert sum(told) == 200
        with pytest.raises(UserError, match=r"\Anumber 0\Z"):
            list(pool.run([Number(0, "late"), Number(1, "at once"), Number(2)], told.append))
        with pytest.raises(StoppedError, match=r"\Aa process that tokenized was killed \(signal 9\)[^\n]*\Z"):
            list(pool.run([Number(0, "killed"), Number(1)], told.append))
    assert workers(psutil.Process()) <= others


class Looks:
    """A task: what its process has loaded, and what it tells libraries to compute on."""

    def run(self, report: Report) -> tuple[set[str], str, str]:
        loaded = {"torch", "transformers", "pytorch_lightning", "hydra"} & sys.modules.keys()
        return loaded, os.environ["OMP_NUM_THREADS"], os.environ["RAYON_NUM_THREADS"]


def test_processes_are_small_and_compute_on_one_thread() -> None:
    """Each computes while the others do."""
    with Processes(2) as pool:
        assert [found for _, found in pool.run([Looks(), Looks()], print)] == [(set(), "1", "1")] * 2


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """Also in the middle of a task: a restart must find the place free."""
    program = (
        f"import sys; sys.path[:0] = {TEST_FOLDERS!r}\n"
        "from slm.data.store.processes import Processes\nfrom test_pipeline import Sleeps\n"
        "list(Processes(2).run([Sleeps(), Sleeps()], print))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"1\n"
    children = psutil.Process(parent.pid).children()
    assert len(workers(psutil.Process(parent.pid))) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []


class Sleeps:
    def run(self, report: Report) -> None:
        report(1)
        time.sleep(60)


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is asked of /proc")
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    """The peak of a process that prepares 30 MB of one text lies near that of 10 MB."""
    line = "the quick brown fox jumps over the lazy dog and runs away\n"
    peaks = []
    for mb in (10, 30):
        folder = tmp_path / str(mb)
        folder.mkdir()
        (folder / "a.txt").write_text(line * (mb * 10**6 // len(line)))
        program = (
            f"import sys; sys.path[:0] = {TEST_FOLDERS!r}\n"
            "from pathlib import Path\nfrom test_pipeline import BYTE, corpus_of\n"
            "from slm.data.store import scan\nfrom slm.data.documents.text import TextFile\n"
            "from slm.data.store.find import prepare_store\n"
            "scan.UNIT_BYTES = 2 * 10**6\nTextFile.span_bytes = 10**6\n"
            f"prepare_store(corpus_of(Path({str(folder)!r})), BYTE, Path({str(tmp_path / f'store{mb}')!r}), 1)\n"
            "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
        )
        peaks.append(int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout))
    assert peaks[1] - peaks[0] < 10_000, peaks  # KiB


def test_the_command_says_what_it_made(tmp_path: Path, run_cli: Any) -> None:
    write_texts(tmp_path / "text", n=3)
    outcome = run_cli("prepare", "data=text", "data.path=text", "tokenizer=byte", "out=store", "num_processes=2")
    assert outcome.status == 0, outcome.err
    assert "training" in outcome.err
    assert run_cli("prepare", "data=text", "data.path=text", "out=store2", "num_processes=0").status == 2
