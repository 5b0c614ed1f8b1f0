"""One process a run folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slm.errors import UserError
from slm.training.run.lock import HOLDER_FILE, LOCK_FILE, only_writer

HOLD = """
import os, sys, time
from pathlib import Path
from slm.training.run.lock import only_writer
with only_writer(Path(sys.argv[1])):
    if not os.fork():
        os.close(1)  # as a loader process would: it outlives a parent that is killed
        time.sleep(600)
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of ``run``, with a child of its own."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_folder_in_use_is_refused(holder: Any, run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Two runs once wrote to one table and over each other's checkpoints. What a killed one left is no obstacle."""
    outcome = run_cli("train", *tiny, "run_dir=run")
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"slm-train: run_dir: 'run' is in use by process {holder.pid} on ")
    assert {file.name for file in (tmp_path / "run").iterdir()} == {LOCK_FILE, HOLDER_FILE}
    holder.kill()
    holder.wait()
    outcome = run_cli("train", *tiny, "run_dir=run")
    assert outcome.status == 0, outcome.err
    assert not (tmp_path / "run" / LOCK_FILE).exists()


def test_a_process_forked_under_it_does_not_let_go_of_it(tmp_path: Path) -> None:
    """It has no lock, and one that leaves the block by an exception leaves that of its parent alone."""
    try:
        with only_writer(tmp_path):
            child = os.fork()
            if not child:
                raise ZeroDivisionError
            assert os.waitpid(child, 0)[1] == 0
            with pytest.raises(UserError, match=f"in use by process {os.getpid()} on "), only_writer(tmp_path):
                pass
            assert (tmp_path / LOCK_FILE).is_file()
    except ZeroDivisionError:
        os._exit(0)


def test_two_at_once(tmp_path: Path) -> None:
    """Of several that come together, and again and again, one holds it at a time: none is let in by a lock file that
    another one removes."""
    command = [sys.executable, "-c", TAKE, str(tmp_path / "run"), str(tmp_path / "inside")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    taken = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert sum(taken) > 30
    assert not list((tmp_path / "run").iterdir())


TAKE = """
import sys, time
from pathlib import Path
from slm.errors import UserError
from slm.training.run.lock import only_writer
taken, until = 0, time.monotonic() + 3
while time.monotonic() < until:
    try:
        with only_writer(Path(sys.argv[1])):
            inside = Path(sys.argv[2])
            inside.open("x").close()
            time.sleep(0.001)
            inside.unlink()
            taken += 1
    except UserError as error:
        assert "in use" in str(error), error
print(taken)
"""


def test_it_is_let_go_of(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), only_writer(tmp_path):
        raise ZeroDivisionError
    with only_writer(tmp_path):
        assert (tmp_path / LOCK_FILE).is_file()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody can write to, not root either."""
    folder = tmp_path / "sealed"
    folder.mkdir()
    if os.geteuid():
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", folder], capture_output=True)
    if mount.returncode:
        pytest.skip("root writes to any folder, and mounting one that is read-only is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_folder_that_cannot_be_written_to(read_only: Path, run_cli: Any, tiny: tuple[str, ...]) -> None:
    for place in (read_only, read_only / "run"):
        outcome = run_cli("train", *tiny, f"run_dir={place}")
        assert outcome.status == 2
        (line,) = outcome.err.splitlines()
        assert place.name in line
        assert "Read-only" in line or "denied" in line


def test_the_message_holds_for_any_file(tmp_path: Path) -> None:
    """The holder is killed between making the file and writing to it, or another program wrote it."""
    (tmp_path / LOCK_FILE).write_text("[1]")
    with only_writer(tmp_path):
        pass
    (tmp_path / "folder" / LOCK_FILE).mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be written to"), only_writer(tmp_path / "folder"):
        pass
