"""Runs of ``slm-train`` that are killed, and what a run folder holds, to compare two."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from witness import Kill

HERE = Path(__file__).parent
OF_A_SESSION = {"run.json"}
"""Times and versions of each session."""


class ForkServer:
    """``fork_server.py``, asked."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)},
        )
        self._answer()

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line: dict[str, Any] = json.loads(self._process.stdout.readline())
        return line


class Run:
    """One run in a folder of its own, with a cache of its own: ``folder/run``.

    Args:
        server: what starts it.
        folder: new.
        settings: of the command line.
        kernels: where the compiled ones lie, to be shared.
    """

    def __init__(self, server: ForkServer, folder: Path, settings: Sequence[str], kernels: Path) -> None:
        self.server = server
        self.folder = folder
        self.arguments = [*settings, "+callbacks.witness._target_=witness.Witness", "run_dir=run", "resume=auto"]
        self.run = folder / "run"
        self.log = folder / "log"
        self.report = folder / "phase"
        (folder / "cache").mkdir(parents=True)
        (folder / "cache" / "native").symlink_to(kernels)

    def go(self, kill: Kill | None = None, *settings: str) -> int:
        """Start the command, or start it again, with `settings` of this session's own; its status."""
        pid = self.start(kill, *settings)
        return self.wait(pid)

    def start(self, kill: Kill | None = None, *settings: str) -> int:
        return self.server.ask(
            arguments=[*self.arguments, *settings],
            folder=str(self.folder),
            environment={"SLM_CACHE_DIR": "cache"},  # relative, so that all runs have the same configuration
            log=str(self.log),
            report=str(self.report),
            kill=asdict(kill) if kill else None,
        )["pid"]

    def wait(self, pid: int) -> int:
        return self.server.ask(wait=pid)["status"]

    @property
    def step(self) -> int:
        """Of the state saved last; 0 before there is one."""
        last = self.run / "checkpoints" / "last.ckpt"
        return torch.load(last, weights_only=True)["global_step"] if last.is_file() else 0

    @property
    def phase(self) -> str:
        """What it was doing when it ended."""
        return self.report.read_text()[:12].strip()

    @property
    def steps_when_signalled(self) -> tuple[int, int]:
        """Whole steps made just before and just after the signal was sent."""
        before, after = self.report.read_text()[12:].split()
        return int(before), int(after)

    @property
    def file_changes(self) -> int:
        """Of the session that ended last."""
        return int(self.log.read_text().rpartition("changes of files: ")[2])


def contents(run: Path) -> dict[str, Any]:
    """Of each file of a run folder what must be equal in two runs that are: all but timings."""
    found = {}
    for file in sorted(run.rglob("*")):
        name = str(file.relative_to(run))
        if not file.is_file() or name in OF_A_SESSION:
            continue
        if file.suffix == ".ckpt":
            content = torch.load(file, weights_only=True)
            found.update({f"{name}: {place}": value for place, value in _leaves(content)})
        elif name == "metrics.csv":
            found[name] = _without_timings(file.read_text())
        elif name == "summary.json":
            found[name] = {
                k: v for k, v in json.loads(file.read_text()).items() if k not in ("seconds", "tokens_per_s")
            }
        else:
            found[name] = file.read_bytes()
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{place}/{key}")
    elif isinstance(value, list | tuple):
        for key, inner in enumerate(value):
            yield from _leaves(inner, f"{place}/{key}")
    elif isinstance(value, torch.Tensor):
        yield (
            place,
            (
                value.dtype,
                tuple(value.shape),
                value.contiguous().view(torch.uint8).numpy().tobytes() if value.dim() else value.item(),
            ),
        )
    else:
        yield place, repr(value)


def _without_timings(text: str) -> list[list[str]]:
    header, *rows = list(csv.reader(io.StringIO(text)))
    return [
        [c for name, c in zip(header, row, strict=True) if not name.startswith("speed/")] for row in (header, *rows)
    ]


def random_kill(draw: random.Random, signal: str = "SIGKILL") -> Kill:
    """At a random instant of a phase drawn first (saving, say, takes a hundredth of the time), or of the whole run."""
    phase, most_times = draw.choice(
        [("preparation", 1), ("first step", 1), ("step", 60), ("validation", 4), ("save", 8), ("end", 1)]
    )
    after = {"preparation": 1.5, "first step": 0.05, "end": 0.03}.get(phase, 0.012)
    return Kill(phase, draw.randint(1, most_times), draw.uniform(0, after), signal)
