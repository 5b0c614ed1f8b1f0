"""A tiny run, and commands called in this process: starting one afresh takes seconds of imports."""

from __future__ import annotations

import contextlib
import csv
import gc
import importlib
import io
import os
import pickle
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

# tiny tensors gain nothing from a second thread, and lose a lot where another process wants the core
os.environ.setdefault("OMP_NUM_THREADS", "1")

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "that",
    "one",
    "dog",
    "run",
    "from",
    "its",
    "old",
    "house",
]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not go through it again with each of hundreds of runs."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _yaml_read_once() -> Iterator[None]:
    """Each command reads the same twenty files of settings, by a loader in Python."""
    load, known = yaml.load, dict[tuple[str, str], bytes]()

    def remembered(stream: Any, Loader: Any) -> Any:  # noqa: N803, as yaml names it
        text = stream if isinstance(stream, (str, bytes)) else stream.read()
        key = (str(text), Loader.__qualname__)
        if key not in known:
            if text is not stream:
                stream.seek(0)  # whose name is told if it is no YAML
            known[key] = pickle.dumps(load(stream, Loader))
        return pickle.loads(known[key])

    with mock.patch.object(yaml, "load", remembered):
        yield


def _invoke(folder: Path, cache: Path, command: str, *arguments: object) -> Outcome:
    """``slm-<command> <arguments>`` in `folder`. An exception is not caught: it would be a traceback."""
    from hydra.core.global_hydra import GlobalHydra

    out, err = io.StringIO(), io.StringIO()
    status = 0
    with (
        mock.patch.dict(os.environ, {"SLM_CACHE_DIR": str(cache), "WANDB_MODE": "offline"}),
        mock.patch.object(sys, "argv", [f"slm-{command}", *map(str, arguments)]),
        _chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        GlobalHydra.instance().clear()
        try:
            importlib.import_module(f"slm.cli.{command}").main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            GlobalHydra.instance().clear()
    return Outcome(status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where token stores are kept during the tests; the C kernels are those of this machine, compiled once."""
    folder = tmp_path_factory.mktemp("cache")
    kernels = Path(os.environ.get("SLM_CACHE_DIR") or "~/.cache/slm").expanduser() / "native"
    kernels.mkdir(parents=True, exist_ok=True)
    (folder / "native").symlink_to(kernels)
    return folder


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 characters of words in a seeded order."""
    draw = random.Random(0)
    text = " ".join(draw.choice(WORDS) for _ in range(6000))[:20000]
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def tiny(text_file: Path) -> tuple[str, ...]:
    """The command line of a run of a second: one layer of width 32, windows of 16 bytes. Its parts are GPT-2's with
    ReLU², which has no family: what is tried by it does not hang on the defaults."""
    return (
        "data=text",
        f"data.path={text_file}",
        "tokenizer=byte",
        "model.params.max_seq_len=16",
        "model.modules.transformer.dim=32",
        "model.modules.transformer.n_layers=1",
        "model.modules.transformer.n_heads=2",
        "optimizer.lr=0.002",
        "scheduler.warmup_steps=5",
        "trainer.precision=32",
        "trainer.accelerator=cpu",
        "trainer.devices=1",
        "trainer.max_steps=6",
        "trainer.batch_size=4",
        "trainer.log_every=1",
        "trainer.val_every=3",
        "trainer.save_every=2",
        "callbacks=none",
        "optimizer=adamw",
        "scheduler=cosine",
        "model.modules.position_embedding.kind=learned",
        *(
            f"model.modules.transformer.{part}"
            for part in (
                "norm=layer_norm",
                "qk_norm=false",
                "mlp=mlp",
                "mlp_mult=4",
                "activation=relu2",
                "bias=true",
                "qkv_bias=true",
                "zero_init=false",
            )
        ),
        "model.modules.output_projection.tie_weights=true",
    )


@pytest.fixture(scope="session")
def invoke(cache_dir: Path) -> Run:
    """``invoke(folder, "train", "seed=2")`` is ``slm-train seed=2`` in `folder`; gives status, out and err."""
    return lambda folder, command, *arguments: _invoke(folder, cache_dir, command, *arguments)


@pytest.fixture
def run_cli(tmp_path: Path, invoke: Run) -> Run:
    """``run_cli("train", "seed=2")``: as `invoke`, in `tmp_path`."""
    return lambda command, *arguments: invoke(tmp_path, command, *arguments)


@pytest.fixture
def train_tiny(run_cli: Run, tiny: tuple[str, ...], tmp_path: Path) -> Callable[..., Path]:
    """``train_tiny("name", "seed=2")`` trains `tiny` with changes and gives the run folder."""

    def train(name: str, *changes: object) -> Path:
        outcome = run_cli("train", *tiny, f"run_dir={name}", *changes)
        assert outcome.status == 0, outcome.err
        return tmp_path / name

    return train


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, invoke: Run, tiny: tuple[str, ...]) -> Path:
    """A finished run folder, to be read only."""
    folder = tmp_path_factory.mktemp("tiny")
    outcome = invoke(folder, "train", *tiny, "run_dir=run", "trainer.max_steps=40", "trainer.val_every=10")
    assert outcome.status == 0, outcome.err
    return folder / "run"


@pytest.fixture(scope="session")
def metrics_of() -> Callable[[Path], list[dict[str, str]]]:
    """The rows of a run's ``metrics.csv`` without its timings."""

    def read(run: Path) -> list[dict[str, str]]:
        with (run / "metrics.csv").open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        return [{name: value for name, value in row.items() if not name.startswith("speed/")} for row in rows]

    return read
