"""How OpenMP's threads wait for each other, and that other programs on the cores are noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slm.models.kernels import waiting
from slm.models.kernels.waiting import CALM_PERIODS, Crowd

pytestmark = [pytest.mark.nightly, pytest.mark.serial]

linux = pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP's waiting is changed on Linux alone")


def test_a_crowd_is_noticed_at_once_and_its_end_after_a_while() -> None:
    crowd = Crowd()
    assert not crowd.heard(0.05)
    assert crowd.heard(0.5)
    assert all(crowd.heard(0.0) for _ in range(CALM_PERIODS - 1))
    assert crowd.heard(0.05), "not calm, but no crowd by itself: the wait begins anew"
    assert all(crowd.heard(0.0) for _ in range(CALM_PERIODS - 1))
    assert not crowd.heard(0.0)


def _with_two_threads(program: str, **variables: str) -> dict[str, object]:
    """What a program prints as JSON, run with two threads."""
    ours = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**ours, "OMP_NUM_THREADS": "2", **variables},
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


SPUN = """
import json, time, torch
from slm.models.kernels.waiting import Sleepers
x = torch.zeros(200_000)

def spun():  # processor time a second, of regions with pauses between them
    x.add_(1.0)
    began, used = time.perf_counter(), time.process_time()
    for _ in range(200):
        x.add_(1.0)
        time.sleep(0.001)
    return (time.process_time() - used) / (time.perf_counter() - began)

awake = max(spun() for _ in range(3))
sleepers = Sleepers()
time.sleep(0.2)
asleep = min(spun() for _ in range(3))
sleepers.dismiss()
print(json.dumps([awake, asleep, max(spun() for _ in range(3))]))
"""


@linux
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="one core alone")
def test_sleepers_let_threads_that_wait_sleep_until_they_are_dismissed() -> None:
    """A second thread that waits for a millisecond takes a core for all of it, or gives it back."""
    awake, asleep, again = _with_two_threads(SPUN)  # type: ignore[misc]
    assert asleep < 0.6 * awake
    assert asleep < 0.6 * again


BITS = """
import hashlib, json, torch
from slm.models.kernels.waiting import Sleepers
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.GELU(), torch.nn.Linear(512, 256))
x = torch.randn(300, 256)

def bits():
    model.zero_grad()
    model(x).square().mean().backward()
    return [hashlib.sha256(p.grad.numpy().tobytes()).hexdigest() for p in model.parameters()]

before, sleepers = bits(), Sleepers()
print(json.dumps([before, bits()]))
"""


@linux
def test_the_bits_do_not_depend_on_how_threads_wait() -> None:
    before, beside_sleepers = _with_two_threads(BITS)  # type: ignore[misc]
    assert before == beside_sleepers


NOTICED = """
import json, subprocess, sys, threading, time, torch
from slm.models.kernels.waiting import heed_others

def sleepers():
    return any(thread.name == "sleepers" for thread in threading.enumerate())

said = [heed_others(), heed_others()]
x, began = torch.zeros(200_000), time.perf_counter()
loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
try:
    while not sleepers() and time.perf_counter() - began < 30:
        x.add_(1.0)
finally:
    for loop in loops:
        loop.kill()
watchers = sum(thread.name == "heed-others" for thread in threading.enumerate())
print(json.dumps({"said": said, "noticed": sleepers(), "watchers": watchers}))
"""


@linux
def test_programs_that_want_the_cores_are_noticed() -> None:
    found = _with_two_threads(NOTICED)
    assert found["noticed"]
    assert found["watchers"] == 1
    assert found["said"] == ["awake, or asleep while other programs want the cores"] * 2


@pytest.mark.parametrize("variable", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_has_set_stays(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "7")
    assert waiting.heed_others() == f"by {variable}=7"


def test_a_run_says_how_its_threads_wait(tiny_run: Path) -> None:
    record = json.loads((tiny_run / "run.json").read_text(encoding="utf-8"))
    assert record["sessions"][0]["threads_wait"] == waiting.heed_others()
