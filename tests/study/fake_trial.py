"""Stands for ``slm-train`` in a trial: it counts in place of training, so that a sweep of many takes seconds.

What a step makes depends on all before it, and on a step that is missed or made twice. It saves, reports and stops as a
run does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

from slm.training.run.folder import write_json
from slm.training.run.lock import only_writer

STEPS, VAL_EVERY, SAVE_EVERY = 40, 10, 5
SECONDS_A_STEP = float(os.environ.get("FAKE_SECONDS", "0.005"))
MODULUS = 2**31 - 1


def preload() -> None:
    pass


def run(arguments: list[str], channel: int) -> int:
    given = dict(argument.split("=", 1) for argument in arguments[1:])
    folder = Path(given["run_dir"])
    with only_writer(folder), socket.socket(fileno=channel) as sweeper:
        if "broken" in given.values():
            print("slm-train: that is broken", flush=True)
            return 2
        if "bug" in given.values():
            sweeper.sendall(json.dumps({"failed": "KeyError: 'a'", "mistake": False}).encode() + b"\n")
            return 1
        if "killed" in given.values():
            os.kill(os.getpid(), signal.SIGKILL)
        return count(
            folder, float(given["lr"]), int(given.get("seed", "1")), int(given.get("stop_after", STEPS)), sweeper
        )


def count(folder: Path, lr: float, seed: int, last: int, sweeper: socket.socket) -> int:
    """Step by step from the newest save; a better `lr` is one that is nearer to 0.3."""
    stopped: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: stopped.append(number))
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    saved = sorted(checkpoints.glob("step_*.ckpt"))
    step, chain, best = json.loads(saved[-1].read_text()) if saved else (0, seed, float("inf"))
    begin = time.perf_counter()
    while step < min(last, STEPS):
        time.sleep(SECONDS_A_STEP)
        step, chain = step + 1, (chain * 48271 + step) % MODULUS
        if stopped or step % SAVE_EVERY == 0:
            save(checkpoints, step, [step, chain, best])
        if stopped:
            return 75
        if step % VAL_EVERY == 0:
            loss = 1 + abs(lr - 0.3) + 1 / step + chain / MODULUS / 1000
            best = min(best, loss)
            save(checkpoints, step, [step, chain, best])
            report = {"step": step, "steps": STEPS, "seconds": time.perf_counter() - begin, "loss": loss}
            sweeper.sendall(json.dumps(report).encode() + b"\n")
            if json.loads(sweeper.makefile("rb").readline())["stop"]:
                break
    write_json(folder / "summary.json", {"step": step, "best_val_loss": best, "chain": chain})
    return 0


def save(checkpoints: Path, step: int, state: list[float]) -> None:
    partial = checkpoints / "partial"
    partial.write_text(json.dumps(state))
    os.replace(partial, checkpoints / f"step_{step:08d}.ckpt")
