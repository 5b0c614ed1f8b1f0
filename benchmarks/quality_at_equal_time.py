"""Recipes after the same time of training: validation loss on `data=python_stdlib`, several seeds.

A schedule falls over a number of steps, so each recipe is first timed for a few seconds and then given as many steps as
fit (or, with `--steps`, those that an earlier probe found). All recipes of a seed train side by side, each on a core of
its own with one thread, so that whatever else the machine does hits all alike; what each really took is printed.
Start-up and validation do not count.

    python benchmarks/quality_at_equal_time.py [--seconds 60] [--seeds 1 2 3] [--recipes gpt2 modern] [overrides …]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

PROBE_S = 15
ENDLESS = 10**6
QUIET = ("callbacks=none", "trainer.log_every=10", "trainer.precision=bf16")


def start(core: int, recipe: str, folder: Path, overrides: list[str]) -> subprocess.Popen[str]:
    """A run of its own process on one core."""
    program = Path(sys.executable).with_name("slm-train")
    command = [str(program), f"recipe={recipe}", *QUIET, f"run_dir={folder}", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def side_by_side(recipes: list[str], folder: Path, overrides: dict[str, list[str]]) -> dict[str, Path]:
    """Train all; the run folders."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < len(recipes):
        raise SystemExit(f"{len(recipes)} recipes side by side need as many cores; there are {len(cores)}")
    runs = {name: folder / name for name in recipes}
    processes = {
        name: start(core, name, runs[name], overrides[name]) for core, name in zip(cores, recipes, strict=False)
    }
    for name, process in processes.items():
        _, said = process.communicate()
        if process.returncode:
            raise SystemExit(f"recipe={name} ended with status {process.returncode}\n{said}")
    return runs


def training_seconds(run: Path) -> tuple[int, float]:
    """Steps, and the seconds they took."""
    seconds, step = 0.0, 0
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if row["speed/step_ms"]:
                seconds += (int(row["step"]) - step) * float(row["speed/step_ms"]) / 1000
                step = int(row["step"])
    return step, seconds


def steps_that_fit(recipes: list[str], folder: Path, given: list[str], seconds: float) -> dict[str, int]:
    """How many steps each makes in `seconds`."""
    probe = [
        *given,
        f"trainer.max_steps={ENDLESS}",
        f"trainer.val_every={ENDLESS}",
        f"trainer.save_every={ENDLESS}",
        f"trainer.max_time='00:00:00:{PROBE_S}'",
        "trainer.limit_val_batches=1",
    ]
    runs = side_by_side(recipes, folder, dict.fromkeys(recipes, probe))
    fits = {}
    for name, run in runs.items():
        steps, took = training_seconds(run)
        fits[name] = int(seconds * steps / took)
    return fits


def main() -> None:
    """Run, print, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, nargs="+", help="of each recipe, in the order of --recipes; no probe")
    parser.add_argument("--recipes", nargs="+", default=["gpt2", "modern"])
    arguments, given = parser.parse_known_args()
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.recipes}
    with tempfile.TemporaryDirectory() as place:
        if arguments.steps:
            steps = dict(zip(arguments.recipes, arguments.steps, strict=True))
        else:
            steps = steps_that_fit(arguments.recipes, Path(place) / "probe", given, arguments.seconds)
        overrides = {
            name: [*given, *(f"trainer.{key}={count}" for key in ("max_steps", "val_every", "save_every"))]
            for name, count in steps.items()
        }
        for seed in arguments.seeds:
            seeded = {name: [*values, f"seed={seed}"] for name, values in overrides.items()}
            for name, run in side_by_side(arguments.recipes, Path(place) / f"seed{seed}", seeded).items():
                made, took = training_seconds(run)
                summary = json.loads((run / "summary.json").read_text())
                result = {"seed": seed, "steps": made, "seconds": round(took, 1), "loss": summary["best_val_loss"]}
                results[name].append(result)
                print(f"{name:<10}{result}", flush=True)
    figures = {"benchmark": "quality_at_equal_time", **vars(arguments), "overrides": given, "results": results}
    for name, ones in results.items():
        losses = [one["loss"] for one in ones]
        spread = statistics.stdev(losses) if len(losses) > 1 else 0.0
        figures[name] = {"mean_loss": statistics.mean(losses), "spread": spread}
        print(f"{name:<10}loss {statistics.mean(losses):.4f} ± {spread:.4f} (nats a token, {len(losses)} seeds)")
    print(f"{platform.platform()}, {os.cpu_count()} cores, one each, torch {torch.__version__}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
