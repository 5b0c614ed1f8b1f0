"""A run that is signalled saves the step under way and exits with 75; what goes on from there is the unbroken run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from stopped_run import RUN

from slm.study.run_record import read_run

SIGNALLING = """
import os, signal
import pytorch_lightning as pl

class Signalling(pl.Callback):
    def __init__(self, name, hook, step, batch=0):
        self.number, self.hook, self.step, self.batch = getattr(signal, name), hook, step, batch

    def _at(self, hook, trainer, batch):
        if (hook, trainer.global_step, batch) == (self.hook, self.step, self.batch):
            os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer, module, batch, index):
        self._at("train", trainer, index % 3)

    def on_validation_batch_start(self, trainer, module, batch, index, loader=0):
        self._at("validation", trainer, index)
"""


@pytest.fixture
def signalling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Settings of a callback that signals its own process at a place in the run."""
    (tmp_path / "signalling.py").write_text(SIGNALLING)
    monkeypatch.syspath_prepend(tmp_path)

    def settings(name: str, hook: str, step: int, batch: int = 0) -> list[str]:
        values = {"_target_": "signalling.Signalling", "name": name, "hook": hook, "step": step, "batch": batch}
        return [f"+callbacks.signalling.{key}={value}" for key, value in values.items()]

    return settings


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, invoke: Any, tiny: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    assert invoke(folder, "train", *tiny, *RUN, "run_dir=run").status == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("name", "hook", "step", "batch", "stops_at"),
    [
        ("SIGTERM", "train", 5, 1, 6),  # a step half accumulated is made whole
        pytest.param("SIGINT", "train", 3, 0, 4, marks=pytest.mark.nightly),  # a step that a validation is due after
        ("SIGUSR1", "validation", 8, 2, 8),
        pytest.param("SIGUSR2", "train", 0, 0, 1, marks=pytest.mark.nightly),
    ],
)
def test_what_was_stopped_goes_on_as_if_it_had_not(
    unbroken: Path,
    signalling: Any,
    run_cli: Any,
    tiny: tuple[str, ...],
    tmp_path: Path,
    metrics_of: Any,
    name: str,
    hook: str,
    step: int,
    batch: int,
    stops_at: int,
) -> None:
    """Whatever was under way, accumulation half-way and validation included: none is made twice, none left out."""
    outcome = run_cli("train", *tiny, *RUN, "run_dir=run", *signalling(name, hook, step, batch))
    assert outcome.status == 75, outcome.err
    said = f"slm-train: stopped by {name} after step {stops_at}; go on from step {stops_at}: slm-train resume=run"
    assert outcome.err.splitlines()[-1] == said
    run = tmp_path / "run"
    assert (read_run(run).state, read_run(run).step) == ("stopped", stops_at)
    assert run_cli("train", "resume=run", "~callbacks.signalling").status == 0
    assert read_run(run).state == "done"
    assert metrics_of(run) == metrics_of(unbroken)
    one, other = (torch.load(r / "checkpoints/last.ckpt", weights_only=True) for r in (run, unbroken))
    assert all(torch.equal(one["state_dict"][key], value) for key, value in other["state_dict"].items())
    assert {file.name for file in run.rglob("*")} == {file.name for file in unbroken.rglob("*")}


@pytest.mark.nightly
def test_stopped_again_in_the_validation_it_began_with(
    signalling: Any, run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, unbroken: Path, metrics_of: Any
) -> None:
    """A validation that is put off twice is still made."""
    assert run_cli("train", *tiny, *RUN, "run_dir=run", *signalling("SIGTERM", "train", 3)).status == 75
    target = "+callbacks.signalling._target_=signalling.Signalling"
    again = [target, "callbacks.signalling.hook=validation", "callbacks.signalling.step=4"]
    assert run_cli("train", "resume=run", *again).status == 75
    assert run_cli("train", "resume=run", "~callbacks.signalling").status == 0
    assert metrics_of(tmp_path / "run") == metrics_of(unbroken)


def test_the_last_step_is_followed_by_the_end(
    signalling: Any, run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, unbroken: Path, metrics_of: Any
) -> None:
    """What is left is a validation and a save; to put that off would leave a run that has no step to make."""
    outcome = run_cli("train", *tiny, *RUN, "run_dir=run", *signalling("SIGTERM", "train", 11))
    assert outcome.status == 0, outcome.err
    assert metrics_of(tmp_path / "run") == metrics_of(unbroken)


def test_auto_of_a_run_that_is_done(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """A loop that runs the command until it succeeds ends, also if the run was killed after its last save."""
    command = ("train", *tiny, "run_dir=run", "resume=auto")
    assert run_cli(*command).status == 0
    summary = tmp_path / "run" / "summary.json"
    before = {file: file.read_bytes() for file in (tmp_path / "run" / "checkpoints").iterdir()}
    assert run_cli(*command).status == 0
    summary.unlink()
    outcome = run_cli(*command)
    assert outcome.status == 0, outcome.err
    assert "done: step 6 of 6" in outcome.err
    assert "validation   loss" in outcome.err
    assert summary.is_file()
    assert {file: file.read_bytes() for file in (tmp_path / "run" / "checkpoints").iterdir()} == before


def test_handlers_are_given_back(run_cli: Any, tiny: tuple[str, ...]) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    assert run_cli("train", *tiny).status == 0
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_bug_in_the_loop_says_where_and_how_to_go_on(
    run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback of what happened stays; nothing is saved of the step that was not made whole."""
    (tmp_path / "broken.py").write_text(
        "import pytorch_lightning as pl\n"
        "class Broken(pl.Callback):\n"
        "    def on_before_optimizer_step(self, trainer, *_):\n"
        "        if trainer.global_step == 4: raise ZeroDivisionError('of the callback')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError) as caught:
        run_cli("train", *tiny, "run_dir=run", "trainer.save_every=3", "+callbacks.b._target_=broken.Broken")
    said = "the run broke off in step 5 (ZeroDivisionError); go on from step 3: slm-train resume=run"
    assert str(caught.value) == said
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    run = read_run(tmp_path / "run")
    assert (run.state, run.error) == ("failed", "ZeroDivisionError: of the callback")
    assert run_cli("train", "resume=run", "~callbacks.b").status == 0


# ---- as processes ----


@pytest.fixture
def started(cache_dir: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``started(*settings)``: the real command, in a group of its own, ended with the test."""
    processes = []

    def start(*settings: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("slm-train")), *settings],
            cwd=tmp_path,
            env={**os.environ, "SLM_CACHE_DIR": str(cache_dir), "PYTHONPATH": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_steps(process: subprocess.Popen[str], run: Path, steps: int) -> None:
    file = run / "metrics.csv"
    while not file.is_file() or file.read_text().count("\n") <= steps:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


LONG = ("trainer.max_steps=1000000", "trainer.val_every=1000000", "trainer.save_every=1000000", "run_dir=run")


def test_ctrl_c_reaches_the_whole_group(started: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """A terminal signals the loaders too, and Slurm does so with SIGTERM: the step cannot be finished without them."""
    process = started(*tiny, *LONG, "data.num_workers=2")
    wait_for_steps(process, tmp_path / "run", 3)
    os.killpg(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 75, err
    assert "Traceback" not in err
    step = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"]
    rows = (tmp_path / "run/metrics.csv").read_text().count("\n") - 1
    assert rows == step
    assert err.splitlines()[-1].endswith(f"go on from step {step}: slm-train resume=run")


@pytest.mark.nightly
def test_a_second_ctrl_c_ends_at_once(started: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """No wait for the step's end, which here does not come."""
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "import pytorch_lightning as pl\n"
        "class Slow(pl.Callback):\n"
        "    def on_train_batch_start(self, trainer, *_):\n"
        "        if trainer.global_step == 3: time.sleep(600)\n"
    )
    process = started(*tiny, *LONG, "+callbacks.slow._target_=slow.Slow")
    wait_for_steps(process, tmp_path / "run", 3)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 130, err
    assert "Traceback" not in err


FORKED = """
import os, time
from slm.training.run.heard_signals import StopSignals
with StopSignals():
    if not os.fork():
        time.sleep(600)
print("left", flush=True)
"""


def test_the_end_waits_for_no_loader() -> None:
    """A loader that still lives holds what it was forked with: the thread that hears signals was never told to end."""
    process = subprocess.Popen([sys.executable, "-c", FORKED], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.wait(timeout=60) == 0
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


STUCK = """
import ctypes, os, signal, threading, time
from pathlib import Path
from slm.training.run.heard_signals import StopSignals

def tell():
    seen = ""
    while not seen.endswith("S" * 10):  # asleep in the lock
        time.sleep(0.05)
        seen += Path(f"/proc/self/task/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[0]
    print("stuck", flush=True)

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has background jobs ignore
with StopSignals() as signals:
    signals.deferred = True
    threads, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    threads.pthread_mutex_lock(lock)
    threading.Thread(target=tell, daemon=True).start()
    threads.pthread_mutex_lock(lock)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a lock of zeros is Linux's")
def test_an_operation_that_takes_minutes() -> None:
    """Python hears of no signal before an operation is done; a backward pass of gpt2_medium took six minutes, in which
    Ctrl-C was not answered, and a second one did nothing. Here it is a lock that nobody opens."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith("SIGINT: stops at the end of this step")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
    finally:
        process.kill()
        process.communicate()


@pytest.mark.nightly
def test_ranks_stop_at_the_same_step(started: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """One of them alone is signalled; both save one state, and a run of one rank goes on from it."""
    process = started(*tiny, *LONG, "trainer.devices=2")
    wait_for_steps(process, tmp_path / "run", 3)
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 75, err
    assert "Traceback" not in err
    assert "a step takes 8 windows, over 2 devices (trainer.global_batch_size sets how many)" in err
    content = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert len(content["random_states"]) == 2
    assert f"after step {content['global_step']};" in err.splitlines()[-1]
