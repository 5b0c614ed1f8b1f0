"""What workers side by side save: twelve trials of the default model, 60 steps each, by two workers, and by Hydra's
basic launcher as it was before there was a sweeper of ours (one job after another in one process, with all threads).

Both have one cache, filled ahead, and take turns; the quickest of each counts. The competitor's code is another working
tree (``git worktree add ../old c64e7e9``), put into a folder of its own as it would be installed; without one it is
today's ``hydra/sweeper=basic``.

    python benchmarks/sweep.py [--against ../old] [--workers 2] [--rounds 1] [--rates 6] [overrides of slm-train …]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

STEPS = ["trainer.max_steps=60"]
MAIN = "import sys; sys.argv[0] = 'slm-train'; from slm.cli.train import main; main()"


def installed(repository: Path, place: Path) -> Path:
    """The package of another working tree, with its configuration where it is read."""
    shutil.copytree(repository / "src" / "slm", place / "slm")
    shutil.copytree(repository / "conf", place / "slm" / "conf")
    return place


def run(folder: Path, package: Path | None, arguments: list[str]) -> tuple[float, list[float]]:
    """Seconds of a sweep, and the losses of its trials in the order of their settings."""
    shutil.rmtree(folder, ignore_errors=True)
    path = {} if package is None else {"PYTHONPATH": str(package)}
    command = [sys.executable, "-c", MAIN, *arguments, f"run_dir={folder}"]
    start = time.perf_counter()
    subprocess.run(
        command, env={**os.environ, **path}, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - start
    with (folder / "sweep.csv").open(newline="") as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: (float(row["optimizer.lr"]), int(row["seed"])))
    return seconds, [float(row["best_val_loss"]) for row in rows]


def main() -> None:
    """Print one JSON line at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rates", type=int, default=6)
    known, overrides = parser.parse_known_args()
    rates = ",".join(f"{1e-3 * 2 ** (k / 2):.3g}" for k in range(known.rates))
    typed = ["model=base", *STEPS, *overrides, "-m", f"optimizer.lr={rates}", "seed=1,2"]
    seconds: dict[str, list[float]] = {"workers": [], "basic": []}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        package = None if known.against is None else installed(known.against, place / "package")
        basic = [] if known.against else ["hydra/sweeper=basic"]
        filled = ["model=base", "trainer.max_steps=1", *overrides, f"run_dir={place / 'filled'}"]
        subprocess.run([sys.executable, "-c", MAIN, *filled], check=True, capture_output=True)
        for _ in range(known.rounds):
            s, losses = run(place / "ours", None, [*typed, f"sweep.workers={known.workers}"])
            seconds["workers"].append(s)
            print(f"{known.workers} workers: {s:.1f} s", flush=True)
            s, others = run(place / "theirs", package, [*typed, *basic])
            seconds["basic"].append(s)
            print(f"basic launcher: {s:.1f} s; losses differ by at most "
                  f"{max(abs(a - b) for a, b in zip(losses, others, strict=True)):.2e}", flush=True)  # fmt: skip
    best = {name: min(values) for name, values in seconds.items()}
    told = {
        "benchmark": "sweep",
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "versions": {name: metadata.version(name) for name in ("torch", "pytorch-lightning", "hydra-core", "optuna")},
        "settings": typed,
        "workers": known.workers,
        "seconds": {name: round(value, 1) for name, value in best.items()},
        "ratio": round(best["workers"] / best["basic"], 3),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
