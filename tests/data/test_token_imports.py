"""Ids that other tools wrote, as each writes them: the very ids in their parts, or a line that says what is wrong."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slm.data.config import CorpusConfig
from slm.data.store.find import find_store, tokenize_with, training_texts
from slm.data.store.token_store import TokenStore
from slm.errors import UserError
from slm.tokenizers.byte import ByteTokenizer

END = ByteTokenizer.eos_id
TEXTS = ["the cat sat", "on a mat,", "日本", "and saw that it was good"] * 30
BYTE = {"kind": "byte"}
SETTINGS = {"patterns": ["*.bin", "*.npy"], "val_path": None, "dtype": "auto"}
DATA = Path(os.environ.get("SLM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
CASES = Path(os.environ.get("SLM_TEST_CASES", Path(__file__).parents[3] / "shared" / "cases"))


def ids_of(texts: list[str], begin: bool = False) -> np.ndarray:
    """Bytes, an end of text behind (or, as llm.c does it, ahead of) each."""
    return np.array([i for text in texts for i in ([END, *text.encode()] if begin else [*text.encode(), END])])


TRAIN, VAL = ids_of(TEXTS[:100]), ids_of(TEXTS[100:])


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., TokenStore]:
    """``imported("folder", dtype="uint16")``: the store of what lies there, with a vocabulary of bytes."""

    def made(path: Any, tokenizer: dict[str, Any] = BYTE, val_fraction: float = 0.1, **settings: Any) -> TokenStore:
        paths = [str(tmp_path / one) for one in ([path] if isinstance(path, str) else path)]
        given = {**SETTINGS, "path": paths, **settings}
        return find_store(CorpusConfig("tokens", str(tmp_path / "cache"), val_fraction, given), tokenizer)

    return made


def nanogpt(folder: Path) -> None:
    TRAIN.astype("<u2").tofile(folder / "train.bin")
    VAL.astype("<u2").tofile(folder / "val.bin")
    (folder / "meta.pkl").write_bytes(b"cos\nsystem\n(S'touch pickled'\ntR.")  # runs a command when it is read


def llm_c(file: Path, ids: np.ndarray, magic: int = 20240520, version: int = 1, dtype: str = "<u2") -> None:
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(ids)
    file.write_bytes(header.tobytes() + ids.astype(dtype).tobytes())


def megatron(file: Path, documents: list[np.ndarray], dtype: str = "<u2", code: int = 8) -> None:
    """As Megatron's `IndexedDatasetBuilder`: each document of one sequence."""
    np.concatenate(documents).astype(dtype).tofile(file)
    lengths = np.array([len(one) for one in documents])
    starts = (np.cumsum(lengths) - lengths) * np.dtype(dtype).itemsize
    head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(documents), len(documents) + 1)
    tables = lengths.astype("<i4").tobytes() + starts.astype("<i8").tobytes()
    file.with_suffix(".idx").write_bytes(head + tables + np.arange(len(documents) + 1, dtype="<i8").tobytes())


def litdata(
    folder: Path, chunks: list[list[np.ndarray]], name: str = "no_header_tensor:16", dtype: str = "<i4"
) -> None:
    """As litdata's writer with `TokensLoader`."""
    folder.mkdir()
    told = []
    for number, items in enumerate(chunks):
        data = [item.astype(dtype).tobytes() for item in items]
        places = 4 * (len(items) + 2) + np.cumsum([0, *map(len, data)])
        content = struct.pack("<I", len(items)) + places.astype("<u4").tobytes() + b"".join(data)
        (folder / f"chunk-0-{number}.bin").write_bytes(content)
        of = {"chunk_size": len(items), "dim": sum(map(len, items)), "filename": f"chunk-0-{number}.bin"}
        told.append({**of, "chunk_bytes": sum(map(len, data))})
    config = {"compression": None, "data_format": [name], "encryption": None, "item_loader": "TokensLoader"}
    (folder / "index.json").write_text(json.dumps({"chunks": told, "config": config}))


def test_nanogpt(imported: Any, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two parts, by their names; its pickle is told of, and not read."""
    monkeypatch.chdir(tmp_path)
    nanogpt(tmp_path)
    store = imported(".")
    assert np.array_equal(store.tokens("train"), TRAIN)
    assert np.array_equal(store.tokens("val"), VAL)
    assert [store.meta[split]["documents"] for split in ("train", "val")] == [100, 20]
    assert store.meta["train"]["bytes"] == sum(len(text.encode()) for text in TEXTS[:100])
    told = capfd.readouterr().err
    assert "nanoGPT, uint16" in told
    assert "meta.pkl' is not read" in told
    assert "the ids begin 'the cat sat" in told
    assert not (tmp_path / "pickled").exists()
    again = imported(".")
    assert again.folder == store.folder
    assert capfd.readouterr().err == ""  # nothing was read again


def test_shards_of_llm_c(imported: Any, tmp_path: Path) -> None:
    """Both widths; an end of text stands ahead of each document, and shards cut one in two."""
    ids = ids_of(TEXTS, begin=True)
    llm_c(tmp_path / "fineweb_val_000000.bin", ids[:200])
    llm_c(tmp_path / "fineweb_train_000001.bin", ids[200:605])
    llm_c(tmp_path / "fineweb_train_000002.bin", ids[605:])
    store = imported(".")
    assert np.array_equal(store.tokens("val"), ids[:200])
    assert np.array_equal(store.tokens("train"), ids[200:])
    cut = int((ids[200] != END) and (ids[199] != END))
    assert sum(store.meta[split]["documents"] for split in ("train", "val")) == len(TEXTS) + cut
    llm_c(tmp_path / "llama.bin", ids, 20240801, 7, "<u4")
    assert np.array_equal(imported("llama.bin").tokens("all"), ids)


def test_megatron(imported: Any, tmp_path: Path) -> None:
    """Documents are those of the index, where no token tells; what validates begins with one of them."""
    documents = [np.array([*text.encode()]) for text in TEXTS]
    megatron(tmp_path / "text_document.bin", documents)
    store = imported("text_document.bin", val_fraction=0.3)
    assert np.array_equal(store.tokens("all"), np.concatenate(documents))
    assert store.meta["all"]["documents"] == len(TEXTS)
    begins = np.cumsum([len(one) for one in documents])
    assert len(store.tokens("train")) in begins
    assert len(store.tokens("train")) == begins[begins >= 0.7 * begins[-1]][0]
    megatron(tmp_path / "wide.bin", documents, "<i4", 4)
    assert np.array_equal(imported("wide.bin").tokens("all"), np.concatenate(documents))


def test_numpy_and_bare_ids(imported: Any, tmp_path: Path) -> None:
    """OLMo's ``.npy`` have no header, NumPy's own have one."""
    np.save(tmp_path / "a.npy", TRAIN[:1000].reshape(10, 100))
    assert np.array_equal(imported("a.npy").tokens("all"), TRAIN[:1000])
    (tmp_path / "olmo").mkdir()
    for number, ids in enumerate(np.split(TRAIN, [300, 900])):
        ids.astype("<u4").tofile(tmp_path / f"olmo/part-{number}-00000.npy")
    assert np.array_equal(imported("olmo", dtype="uint32").tokens("all"), TRAIN)
    with pytest.raises(UserError, match=r"does not say how its ids are written.*data\.dtype=uint16"):
        imported("olmo")
    with pytest.raises(UserError, match=r"every second id .* is 0, read as uint16.*data\.dtype=uint32"):
        imported("olmo", dtype="uint16")
    with pytest.raises(UserError, match=r"'.*a\.npy' \(NumPy\) says itself that it holds int64"):
        imported("a.npy", dtype="uint16")


def test_litdata(imported: Any, tmp_path: Path) -> None:
    """Chunks in the index's order, which is not that of their names once there are ten, a document an item."""
    documents = [ids_of([text]) for text in TEXTS]
    litdata(tmp_path / "train", [documents[i : i + 5] for i in range(0, 100, 5)])
    litdata(tmp_path / "val", [documents[100:]], "no_header_numpy:5", "<u2")
    store = imported(["train", "val"])
    assert np.array_equal(store.tokens("train"), TRAIN)
    assert np.array_equal(store.tokens("val"), VAL)
    assert store.meta["train"]["documents"] == 100


@pytest.mark.filterwarnings("ignore")  # of litdata
def test_litdata_as_it_writes_itself(imported: Any, tmp_path: Path) -> None:
    writer = pytest.importorskip("litdata.streaming.writer", reason="the library litdata is not installed")
    import torch
    from litdata.streaming.item_loader import TokensLoader

    for dtype in (torch.int32, torch.int64, torch.uint16):
        folder = tmp_path / f"{dtype}"
        out = writer.BinaryWriter(str(folder), chunk_bytes=1000, item_loader=TokensLoader())
        for number, text in enumerate(TEXTS):
            out[number] = torch.tensor(ids_of([text]), dtype=dtype)
        out.done()
        out.merge()
        assert len(list(folder.glob("chunk-*.bin"))) > 2
        assert np.array_equal(imported(folder.name).tokens("all"), ids_of(TEXTS))


def test_what_validates_is_the_last_part_from_where_a_document_begins(
    imported: Any, tmp_path: Path, capfd: Any
) -> None:
    np.save(tmp_path / "a.npy", TRAIN)
    for fraction in (0.05, 0.3, 0.5):
        store = imported("a.npy", val_fraction=fraction)
        train, val = np.array(store.tokens("train")), np.array(store.tokens("val"))
        assert np.array_equal(np.concatenate([train, val]), TRAIN)
        assert train[-1] == END
        assert 0.45 * fraction < len(val) / len(TRAIN) <= fraction + 1e-3
    capfd.readouterr()
    np.save(tmp_path / "one.npy", np.arange(200))  # a single document is cut where it must be
    assert len(imported("one.npy", val_fraction=0.25).tokens("train")) == 150
    told = capfd.readouterr().err
    assert "the last 25 % validate" in told
    assert "no id ends or begins a text (256)" in told


def test_parts_are_known_by_their_names(imported: Any, tmp_path: Path, capfd: Any) -> None:
    for part in ("training", "Validation", "test"):
        (tmp_path / f"d/{part}").mkdir(parents=True)
        np.save(tmp_path / f"d/{part}/latest.npy", TRAIN if part == "training" else VAL)  # no "test" in "latest"
    store = imported("d")
    assert np.array_equal(store.tokens("train"), TRAIN)
    assert np.array_equal(store.tokens("val"), VAL)
    told = capfd.readouterr().err
    assert "left out as files of other parts, by their names" in told
    assert "d/test/latest.npy" in told
    other = imported("d", val_path=str(tmp_path / "d/test"))
    assert "d/Validation/latest.npy" in capfd.readouterr().err
    assert np.array_equal(other.tokens("train"), TRAIN)
    assert len(imported("d/test/latest.npy").tokens("all")) == len(VAL)  # asked for by itself


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda file: llm_c(file, VAL, 20240522), "llm.c's format 20240522"),
        (lambda file: file.write_bytes(b"MMIDIDX\0\0" + bytes(99)), "is the index of other files"),
        (lambda file: megatron_cut(file), "is cut off: it has"),
        (lambda file: index_cut(file), "is cut off; fetch"),
        (lambda file: saved(file, VAL.astype("f4")), "holds float32, which are no token ids"),
        (lambda file: saved(file, np.array([{}])), "which are no token ids"),
        (lambda file: saved(file, VAL[:0]), "holds no ids"),
        (lambda file: saved(file, -VAL), "holds the id -32, and tokenizer=byte has ids up to 257"),
        (lambda file: saved(file, VAL + 9), "holds the id 265, and tokenizer=byte"),
        (lambda file: saved(file, VAL[:1]), "too few to hold out"),
    ],
)
def test_what_is_wrong_is_told(imported: Any, tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    make(tmp_path / "x.bin")
    with pytest.raises(UserError) as caught:
        imported("x.bin")
    assert said in str(caught.value)
    assert "x." in str(caught.value) or "too few" in said
    assert not list(tmp_path.glob("cache/*/*.partial"))


@pytest.mark.parametrize("form", ["nanogpt", "llm_c", "megatron", "numpy", "litdata"])
def test_damage_is_told_or_does_no_harm(imported: Any, tmp_path: Path, form: str) -> None:
    """Bytes of headers, indices and ends are changed: a store comes of it, or one line."""
    folder = tmp_path / "in"
    folder.mkdir()
    if form == "litdata":
        litdata(folder / "a", [[VAL[:40], VAL[40:90]], [VAL[90:200]]])
    elif form == "numpy":
        np.save(folder / "a.npy", VAL)
    else:
        {"nanogpt": lambda: nanogpt(folder), "llm_c": lambda: llm_c(folder / "a.bin", VAL),
         "megatron": lambda: megatron(folder / "a.bin", [VAL[:40], VAL[40:90], VAL[90:200]])}[form]()  # fmt: skip
    whole = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    draw, told = random.Random(form), list[str]()
    for _ in range(60):
        file = draw.choice(sorted(whole))
        content = bytearray(whole[file])
        place = draw.randrange(min(len(content), 300))
        content[place] = draw.choice([0, 1, 0x30, 0x39, 0x7F, 0xFF, draw.randrange(256)])
        file.write_bytes(content[: draw.choice([len(content), len(content), place])])
        try:
            assert len(imported("in").tokens("all")) > 0
        except UserError as error:
            told.append(str(error))
        finally:
            file.write_bytes(whole[file])
    assert len(told) > 5
    assert not any("\n" in one for one in told)


def saved(file: Path, array: np.ndarray) -> None:
    with file.open("wb") as out:  # `numpy.save` adds an ending to a name
        np.save(out, array)


def megatron_cut(file: Path) -> None:
    megatron(file, [TRAIN, VAL])
    file.write_bytes(file.read_bytes()[:-1])


def index_cut(file: Path) -> None:
    megatron(file, [TRAIN, VAL])
    index = file.with_suffix(".idx")
    index.write_bytes(index.read_bytes()[:-1])


def test_a_store_of_ours_is_no_file_of_others(imported: Any, tmp_path: Path) -> None:
    """One in the same folder is passed over, by itself it is named."""
    nanogpt(tmp_path)
    store = imported(".")
    assert tmp_path in store.folder.parents
    assert imported(".").folder == store.folder
    with pytest.raises(UserError, match=r"is a token store already.*data=prepared"):
        imported(str(store.folder))


def test_a_vocabulary_is_named_never_fitted(imported: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", TRAIN)
    for kind in ("bpe", "simple", "regex"):
        with pytest.raises(UserError, match=r"no vocabulary can be fitted.*tokenizer=tiktoken"):
            imported("a.npy", {"kind": kind})
    corpus = CorpusConfig("tokens", str(tmp_path), 0.1, {**SETTINGS, "path": str(tmp_path)})
    with pytest.raises(UserError, match="no vocabulary can be fitted"):
        next(training_texts(corpus))
    assert np.array_equal(tokenize_with(corpus, ByteTokenizer()).tokens("all"), TRAIN)


def test_characters_as_nanogpt_numbers_them(imported: Any, tmp_path: Path) -> None:
    """``stoi`` of its ``prepare.py`` over the same text, given as the text or as JSON: the ids read as the text."""
    text = "to be, or not to be:\nthat is the question\n" * 20
    numbers = {character: number for number, character in enumerate(sorted(set(text)))}
    ids = np.array([numbers[character] for character in text], "<u2")
    for name, part in (("train.bin", ids[:700]), ("val.bin", ids[700:])):
        part.tofile(tmp_path / name)
    (tmp_path / "input.txt").write_text(text)
    for name, content in (("a", numbers), ("b", "".join(sorted(numbers))), ("c", {"vocab_size": 99, "stoi": numbers})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    for name in ("input.txt", "a.json", "b.json", "c.json"):
        store = imported(".", {"kind": "characters", "path": str(tmp_path / name)})
        assert store.tokenizer.decode(store.tokens("train")[np.arange(700)].tolist()) == text[:700]
        assert store.meta["train"]["bytes"] == 700
        assert store.tokenizer.encode(text) == ids.tolist()
        assert store.tokenizer.vocab_size == len(numbers) + 3


def test_a_case_of_gpt2s(imported: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """nanoGPT's files with a ``meta.pkl`` of another vocabulary beside them."""
    folder = CASES / "text/nanogpt_bins/data/shakespeare"
    if not folder.is_dir():
        pytest.skip("shared/cases is not there")
    if not (DATA / "tiktoken_cache").is_dir():
        pytest.skip("shared/data is not there")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(DATA / "tiktoken_cache"))
    store = imported(str(folder), {"kind": "tiktoken"})
    assert np.array_equal(store.tokens("train"), np.fromfile(folder / "train.bin", "<u2"))
    assert store.tokenizer.decode(np.array(store.tokens("train"))[:7].tolist()) == "One day Nell went to the"


def test_trained_on_straight_and_prepared(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, metrics_of: Any) -> None:
    """``data=tokens`` in ``slm-train`` is the store that ``slm-prepare`` makes; and the ids that text itself gives."""
    nanogpt(tmp_path)
    made = run_cli("prepare", "data=tokens", "data.path=.", "tokenizer=byte", "out=store")
    assert made.status == 0, made.err
    assert json.loads(made.out)["train"] == {"documents": 100, "bytes": len(TRAIN) - 100, "tokens": len(TRAIN)}
    assert "nanoGPT" in made.err
    own = [setting for setting in tiny if not setting.startswith("data")]
    for run, data in (("a", "data=tokens data.path=."), ("b", "data=prepared data.path=store")):
        outcome = run_cli("train", *own, *data.split(), f"run_dir={run}")
        assert outcome.status == 0, outcome.err
    assert metrics_of(tmp_path / "a") == metrics_of(tmp_path / "b")
