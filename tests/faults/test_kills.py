"""Stopped at random instants, the same command again until it succeeds: the run folder is that of an untouched run.

All of it is compared to the last bit but timings: weights, optimizer, random states and every other entry of the
checkpoints, the bundle, the table, the samples. ``make faults`` kills a hundred times and says what it met.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from runs import ForkServer, Run, contents, differences, random_kill
from witness import PHASES, Kill

pytestmark = pytest.mark.nightly

LONG = os.environ.get("SLM_FAULTS") == "long"
KILLS = 17 if LONG else 3  # of each case
KILLS_OF_A_RUN = 6

LAST_STEP = 24

MODEL = (
    "tokenizer=byte",
    "model.modules.transformer.dim=32",
    "model.modules.transformer.n_layers=2",
    "model.modules.transformer.n_heads=2",
    "model.params.dropout=0.1",
)
TRAINING = (
    "scheduler.warmup_steps=5",
    "trainer.precision=32",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    f"trainer.max_steps={LAST_STEP}",
    "trainer.batch_size=2",
    "trainer.log_every=2",
    "trainer.val_every=7",
    "trainer.save_every=5",
)
SAMPLES = ("model.params.max_seq_len=16", "callbacks.sample_text.max_new_tokens=4")
TEXT = ("data=text", "data.path={words}", *SAMPLES)
MIXTURE = (
    "data=mixture",
    "+data@data.parts.words=text",
    "+data@data.parts.code=text",
    "data.parts.words.path={words}",
    "data.parts.code.path={code}",
    "+data.parts.words.weight=3",
    *SAMPLES,
)
TALKS = ("task=sft", "data.path={talks}", "model.params.max_seq_len=96", "task.max_answer_tokens=4", "task.answers=4")


@dataclass(frozen=True)
class Case:
    """Attributes:
    data: settings of it, with the names of files to be filled in.
    num_workers: loader processes.
    accumulate: micro-batches a step.
    """

    data: tuple[str, ...]
    num_workers: int
    accumulate: int

    def settings(self, files: dict[str, Path]) -> list[str]:
        data = [setting.format(**files) for setting in self.data]
        batch = f"trainer.global_batch_size={2 * self.accumulate}"
        return [*data, *MODEL, *TRAINING, batch, f"data.num_workers={self.num_workers}"]


CASES = {
    "no loaders, accumulating 3": Case(TEXT, 0, 3),
    "mixture, 2 loaders, accumulating 1": Case(MIXTURE, 2, 1),
    "no loaders, accumulating 1": Case(TEXT, 0, 1),
    "2 loaders, accumulating 3": Case(TEXT, 2, 3),
    "mixture, no loaders, accumulating 3": Case(MIXTURE, 0, 3),
    "conversations, 2 loaders, accumulating 3": Case(TALKS, 2, 3),
}
SHORT_CASES = list(CASES)[:2]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("texts")
    code, talks = folder / "code.txt", folder / "talks.jsonl"
    code.write_text("def f(x):\n    return x + 1\n" * 300)
    lines = [json.dumps({"prompt": f"say {i % 7}", "response": "x" * (i % 5 + 1)}) for i in range(60)]
    talks.write_text("\n".join(lines))
    return {"words": text_file, "code": code, "talks": talks}


@pytest.fixture(scope="module")
def new_run(
    server: ForkServer, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, cache_dir: Path
) -> Callable[[Case], Run]:
    kernels = cache_dir / "native"
    kernels.mkdir(exist_ok=True)
    return lambda case: Run(server, tmp_path_factory.mktemp("killed"), case.settings(files), kernels)


def untouched(new_run: Callable[[Case], Run], case: Case) -> Run:
    run = new_run(case)
    assert run.go() == 0, run.log.read_text()
    return run


@pytest.mark.parametrize("name", CASES if LONG else SHORT_CASES)
def test_killed_anywhere_it_ends_the_same(
    name: str, new_run: Callable[[Case], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """A few kills a run, a phase and an instant of it drawn for each."""
    case, draw = CASES[name], random.Random(name)
    began = time.monotonic()
    expected = contents(untouched(new_run, case).run)
    met: Counter[str] = Counter()
    while met.total() < KILLS:
        run, kills = new_run(case), []
        while (status := run.go(random_kill(draw) if len(kills) < KILLS_OF_A_RUN else None)) == -9:
            kills.append(run.phase)
        assert status == 0, (kills, run.log.read_text()[-3000:])
        assert differences(expected, contents(run.run)) == [], kills
        met.update(kills)
    with capsys.disabled():
        where = ", ".join(f"{met[phase]} in {phase}" for phase in PHASES if met[phase])
        print(f"\n{name}: {met.total()} of {met.total()} kills, identical ({where}); {time.monotonic() - began:.0f} s")


@pytest.mark.skipif(not LONG, reason="part of make faults")
@pytest.mark.parametrize("name", SHORT_CASES)
def test_signalled_anywhere_it_saves_within_a_step(
    name: str, new_run: Callable[[Case], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM at random instants: status 75, the step under way saved, and in the end the untouched run."""
    case, draw, met = CASES[name], random.Random(name), 0
    expected = contents(untouched(new_run, case).run)
    while met < 10:
        run, signals = new_run(case), 0
        while status := run.go(random_kill(draw, "SIGTERM") if signals < KILLS_OF_A_RUN else None):
            if status == -15 and run.phase == "preparation":  # it had not begun yet
                continue
            assert status == 75, run.log.read_text()[-3000:]
            signals += 1
            saved = run.step
            before, after = run.steps_when_signalled
            assert run.phase == "preparation" or before <= saved <= after + 1
        assert differences(expected, contents(run.run)) == []
        met += signals
    with capsys.disabled():
        print(f"\n{name}: {met} of {met} SIGTERM, each saved within a step, identical")


STATUSES = {"stop_after": (0,), "max_time": (0,), "SIGTERM": (75, -15), "SIGKILL": (-9,)}
"""Of each way to end a session; -15 where it had not begun to heed signals."""
NO_BUDGET = "trainer.max_time=null"  # a session has that of the one before, anew


@pytest.mark.parametrize("name", [name for name in CASES if "accumulating 3" in name][: 3 if LONG else 1])
def test_stopped_by_whatever_cause_it_ends_the_same(
    name: str, new_run: Callable[[Case], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """Sessions are ended as planned, by steps or by time, or by a signal, one cause after the other in a drawn order;
    a validation that only the end of a session asked for leaves nothing behind."""
    case, draw = CASES[name], random.Random(f"causes of {name}")
    expected = contents(untouched(new_run, case).run)
    met: Counter[str] = Counter()
    while min(met[cause] for cause in STATUSES) < (10 if LONG else 1):
        run, causes = new_run(case), []
        for cause in draw.sample(list(STATUSES), len(STATUSES)):
            status = run.go(*_ending(cause, run, draw))
            if status == 0 and run.step == LAST_STEP:  # before its time was over, or its signal came
                break
            assert status in STATUSES[cause], (causes, cause, run.log.read_text()[-3000:])
            causes.append(cause)
        else:
            assert run.go(None, NO_BUDGET) == 0, (causes, run.log.read_text()[-3000:])
            assert differences(expected, contents(run.run)) == [], causes
            met.update(causes)
    with capsys.disabled():
        print(f"\n{name}: {met.total()} of {met.total()} stops, identical ({', '.join(map(str, met.items()))})")


def _ending(cause: str, run: Run, draw: random.Random) -> list[Any]:
    """Arguments of `Run.go` for a session that ends so, early enough to leave steps to others."""
    if cause == "stop_after":
        return [None, NO_BUDGET, f"stop_after={run.step + draw.randint(1, 6)}"]
    if cause == "max_time":
        return [None, f"trainer.max_time={{milliseconds: {draw.randint(1, 80)}}}"]
    phase = draw.choice(["preparation", "first step", "step", "step", "step", "validation", "save"])
    return [Kill(phase, draw.randint(1, 15) if phase == "step" else 1, draw.uniform(0, 0.02), cause), NO_BUDGET]


@pytest.mark.skipif(not LONG, reason="part of make faults")
@pytest.mark.parametrize("name", SHORT_CASES)
def test_killed_before_any_change_of_a_file(
    name: str, new_run: Callable[[Case], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """Files are opened, renamed, linked and removed in an order; between any two of them the run may end.

    A session is killed before its n-th change, the next before its n-th, and so on, for a number of n.
    """
    case = CASES[name]
    first = untouched(new_run, case)
    expected, changes, met = contents(first.run), first.file_changes, 0
    for nth in range(11, changes // 2, 6):
        run, kills = new_run(case), 0
        while (status := run.go(Kill("file", nth if kills < KILLS_OF_A_RUN else changes * 10))) == -9:
            kills += 1
            nth += 1  # a session repeats what the one before did until it has saved
        assert status == 0, run.log.read_text()[-3000:]
        assert differences(expected, contents(run.run)) == [], (nth, kills)
        met += kills
    with capsys.disabled():
        print(f"\n{name}: {met} of {met} kills between two changes of files, identical")


def test_the_command_itself_does_what_the_forked_one_does(new_run: Callable[[Case], Run]) -> None:
    """What the other tests kill is ``slm-train``, started in another way; here it is as a user starts it."""
    case = CASES[SHORT_CASES[0]]
    expected = contents(untouched(new_run, case).run)
    run = new_run(case)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    environment["SLM_CACHE_DIR"] = "cache"
    command = [str(Path(sys.executable).with_name("slm-train")), *run.arguments]
    with subprocess.Popen(command, cwd=run.folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step 6/24"):
                process.kill()
    assert process.returncode == -9
    again = subprocess.run(command, cwd=run.folder, env=environment, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert differences(expected, contents(run.run)) == []
