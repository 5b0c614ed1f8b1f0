"""A study's trials: which are done, by whom, what becomes of those that fail, and of a signal."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_sweep import config_of, study_of, sweeping
from test_sweep_kills import start, table, wait_for

from slm.study.sweep.claims import FileClaims, PostgresClaims
from slm.study.sweep.journal import journal
from slm.study.sweep.settings import settings_of
from slm.study.sweep.study import JOURNAL_FILE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="trials are forked")


@pytest.fixture(autouse=True)
def _fake_trial_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def test_a_trial_that_fails_is_a_row_with_its_reason(tmp_path: Path) -> None:
    """Whatever of: a mistake, a bug, a signal that comes again and again; the others are done."""
    study = study_of(tmp_path, config_of(workers=2), ["0.1", "broken", "bug", "killed", "0.2"], ["1"])
    sweeping(study).run()
    told = {row["lr"]: (row["state"], row["error"]) for row in table(tmp_path)}
    assert told["0.1"] == told["0.2"] == ("done", "")
    assert told["broken"] == ("failed", "that is broken")
    assert told["bug"] == ("failed", "KeyError: 'a'")
    state, error = told["killed"]
    assert state == "failed"
    assert error.startswith("killed by SIGKILL 3 times, the last saved step being 0")
    swept = ["lr=broken", "seed=1"]
    mistakes = {trial.point["lr"]: trial.outcome.mistake for trial in study.all() if trial.outcome}
    noted = json.loads((tmp_path / "lr=broken,seed=1" / "failed.json").read_text())
    assert noted == {"overrides": swept, "swept": swept, "error": "that is broken", "mistake": True}
    assert mistakes == {"0.1": False, "0.2": False, "broken": True, "bug": False, "killed": True}
    before = (tmp_path / "lr=0.1,seed=1" / "summary.json").stat().st_mtime_ns
    again = study_of(tmp_path, config_of(retry_failed=True), ["0.1", "broken", "bug", "killed", "0.2"], ["1"])
    assert [trial.state for trial in again.all()] == ["done", "waiting", "waiting", "waiting", "done"]
    assert (tmp_path / "lr=0.1,seed=1" / "summary.json").stat().st_mtime_ns == before


def test_a_setting_that_is_stopped_takes_its_seeds_with_it(tmp_path: Path) -> None:
    """The one that waits is not begun; the one that was stopped keeps its save and can be gone on with."""
    rates = ("0.3", "0.31", "0.32", "0.33", "0.34", "0.9", "0.8")
    study = study_of(tmp_path, config_of(pruner="median", seed=3), rates)
    sweeping(study).run()
    settings = settings_of(study.all())
    assert min((one for one in settings if one.state == "done"), key=lambda one: one.loss or 9).point == {"lr": "0.3"}
    stopped = [setting for setting in settings if setting.state == "pruned"]
    assert stopped
    for setting in stopped:
        ran, waited = setting.trials
        assert max((tmp_path / ran.folder / "checkpoints").glob("step_*.ckpt")).stem == f"step_{ran.stop_at:08d}"
        assert waited.outcome
        assert waited.outcome.error == "its setting was stopped with another seed"
        assert not (tmp_path / waited.folder).exists()


def test_the_best_go_on_from_rung_to_rung(tmp_path: Path) -> None:
    """With all their seeds, from their saves; the others end where they stand, and nothing is done twice."""
    rates = ("0.9", "0.8", "0.7", "0.6", "0.5", "0.31")
    study = study_of(tmp_path, config_of(pruner="asha", workers=2), rates)
    sweeping(study).run()
    ended = {setting.point["lr"]: setting for setting in settings_of(study.all())}
    assert {rate for rate, setting in ended.items() if setting.state == "done"} == {"0.31", "0.5"}
    steps = {rate: [trial.reports[-1].step for trial in setting.trials] for rate, setting in ended.items()}
    assert steps["0.31"] == [40, 40]
    assert sorted(steps.values()) == [[10, 10]] * 2 + [[20, 20]] * 2 + [[40, 40]] * 2
    whole = study_of(tmp_path / "whole", config_of(), ["0.31"])
    sweeping(whole).run()
    assert [trial.outcome for trial in whole.all()] == [trial.outcome for trial in ended["0.31"].trials]


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_what_is_drawn_depends_on_the_seed_and_what_is_known(tmp_path: Path, kind: str) -> None:
    """Settings are drawn one by one, none twice, until there are no more; a second sweep draws the same."""
    points = []
    for folder in ("one", "two"):
        study = study_of(tmp_path / folder, config_of(kind=kind, trials=9))
        while (taken := study.take()) is not None:
            trial, claim = taken
            study.trials.end(trial, _done(abs(float(trial.point["lr"]) - 0.3)))
            claim.release()
        points.append([(trial.point["lr"], trial.seed) for trial in study.all()])
    assert points[0] == points[1]
    assert len(set(points[0])) == len(points[0]) == 12


def _done(loss: float) -> Any:
    from slm.study.sweep.trials import Outcome

    return Outcome("done", {"best_val_loss": loss, "step": 1})


def test_a_signal_lets_trials_save_and_a_second_ends_them(tmp_path: Path) -> None:
    """75 and gone on with; a second Ctrl-C 130 at once; no process is left of either."""
    sweep = start(tmp_path, workers=2)
    wait_for(lambda: len(list(tmp_path.glob("*/checkpoints/step_00000010.ckpt"))) >= 2)
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait(20) == 75
    assert any(trial.state == "running" for trial in study_of(tmp_path, config_of()).all())
    sweep = start(tmp_path, workers=2)
    wait_for(lambda: len(psutil.Process(sweep.pid).children(recursive=True)) >= 3)
    everyone = psutil.Process(sweep.pid).children(recursive=True)
    sweep.send_signal(signal.SIGINT)
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait(20) != 0
    assert psutil.wait_procs(everyone, timeout=5)[1] == []


def test_workers_join_from_other_processes(tmp_path: Path) -> None:
    """Each trial is begun once, whoever does it; who joins does not wait for the others' last one."""
    first = start(tmp_path, workers=1)
    wait_for(lambda: (tmp_path / JOURNAL_FILE).is_file() and bool(list(tmp_path.glob("*/checkpoints"))))
    second = start(tmp_path, workers=1, joins=True)
    assert first.wait(60) == 0
    assert second.wait(60) == 0
    assert [row["state"] for row in table(tmp_path)] == ["done"] * 12


def test_a_torn_line_of_the_journal_costs_nothing(tmp_path: Path) -> None:
    """Optuna glues the next line to it, and no reader comes past that."""
    study = study_of(tmp_path, config_of())
    before = study.all()
    with (tmp_path / JOURNAL_FILE).open("ab") as file:
        file.write(b'{"op_code":4,"trial_i')
    again = study_of(tmp_path, config_of())
    again.trials.begin(again.all()[0])
    states = [trial.state for trial in study_of(tmp_path, config_of()).all()]
    assert states == ["running"] + ["waiting"] * (len(before) - 1)
    whole = tmp_path / "whole"
    journal(whole).append_logs([{"a": 1}])
    journal(whole).append_logs([{"a": 2}])
    assert list(journal(whole).read_logs(0)) == [{"a": 1}, {"a": 2}]


def test_a_claim_ends_with_its_holder(tmp_path: Path) -> None:
    """However that ends."""
    code = f"""
from pathlib import Path
from slm.study.sweep.claims import FileClaims
claim = FileClaims(Path({str(tmp_path)!r})).take("trial-1")
print("held", flush=True)
import time; time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        claims = FileClaims(tmp_path)
        assert claims.take("trial-1") is None
        other = claims.take("trial-2")
        assert other is not None
        other.release()
        holder.kill()
        holder.wait()
        assert claims.take("trial-1") is not None


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """The address of a server of its own; none where the programs or the driver are missing."""
    pytest.importorskip("psycopg")
    tools = Path(next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), "/nowhere"))
    if not (tools / "initdb").is_file() or (os.geteuid() == 0 and shutil.which("runuser") is None):
        pytest.skip("PostgreSQL is not installed")
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    place = Path(f"/tmp/slm-postgres-{os.getpid()}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/tmp"}
    subprocess.run([*as_user, tools / "initdb", "-A", "trust", "-U", "slm", "-D", place], **quiet)
    options = f"-p {port} -k /tmp -c fsync=off -c listen_addresses=127.0.0.1"
    try:
        subprocess.run(
            [*as_user, tools / "pg_ctl", "-w", "-D", place, "-o", options, "-l", "/dev/null", "start"], **quiet
        )
        yield f"postgresql://slm:secret@127.0.0.1:{port}/postgres"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run([*as_user, tools / "pg_ctl", "-m", "immediate", "-D", place, "stop"], **quiet)
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.nightly
def test_a_study_in_postgresql(tmp_path: Path, postgres: str) -> None:
    """Two workers that share nothing but the database, one of them killed: each trial once, no password in a file."""
    first = start(tmp_path, workers=1, storage=postgres)
    wait_for(lambda: bool(list(tmp_path.glob("*/checkpoints"))))
    second = start(tmp_path, workers=1, storage=postgres, joins=True)
    time.sleep(2)
    first.kill()
    first.wait()
    assert second.wait(60) == 0
    assert start(tmp_path, workers=1, storage=postgres).wait(60) == 0
    assert [row["state"] for row in table(tmp_path)] == ["done"] * 12
    assert not any("secret" in file.read_text() for file in (tmp_path / "study.json", tmp_path / "sweep.csv"))
    one, other = (PostgresClaims(postgres.replace("://", "+psycopg://"), "study") for _ in range(2))
    claim = one.take("trial-1")
    assert claim is not None
    assert other.take("trial-1") is None
    assert one.take("trial-1") is None
    claim.release()
    assert other.take("trial-1") is not None
