"""Recipes against the public baseline recipe: wall-clock of the whole process, and the loss it ends with.

The baseline is ``experiment=shakespeare_char_cpu`` in fp32, with PyTorch's own operations alone (no C kernels, no
compilation); the contender ``experiment=speedrun_shakespeare_cpu``, once for each seed. The loss is measured apart from
training, on the bundle that a run leaves: the whole last tenth of the text, windows of 64, nats per character.

    python benchmarks/time_to_loss.py path/to/tinyshakespeare.txt [--seeds 1 2 3] [overrides of the contender …]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

import slm

WINDOW = 64
BASELINE = "shakespeare_char_cpu"
CONTENDER = "speedrun_shakespeare_cpu"


def run(experiment: str, text: Path, folder: Path, overrides: list[str], plain: bool = False) -> dict[str, float]:
    """Train in a process of its own; its seconds from start to exit, and the loss of what it leaves."""
    name = Path(sys.executable).with_name("slm-train")
    command = [str(name), f"experiment={experiment}", f"data.path={text}", f"run_dir={folder}", *overrides]
    environment = {
        **os.environ,
        "SLM_CACHE_DIR": str(folder.parent / "cache"),
        **({"SLM_NATIVE": "0"} if plain else {}),
    }
    start = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - start
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {ended.returncode}\n{ended.stderr}")
    return {"seconds": seconds, "loss": loss_of(folder, text)}


@torch.inference_mode()
def loss_of(folder: Path, text: Path) -> float:
    """Mean nats per character over the last tenth of the text."""
    lm: Any = slm.load(folder, device="cpu")
    characters = text.read_text(encoding="utf-8")
    ids = torch.tensor(lm.tokenizer.encode(characters[int(0.9 * len(characters)) :]))
    n_windows = (len(ids) - 1) // WINDOW
    inputs, labels = (part[: n_windows * WINDOW].view(n_windows, WINDOW) for part in (ids[:-1], ids[1:]))
    total = sum(
        float(cross_entropy(lm.model(x).flatten(0, 1), y.flatten(), reduction="sum"))
        for x, y in zip(inputs.split(256), labels.split(256), strict=True)
    )
    return total / labels.numel()


def main() -> None:
    """Run, print, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments, overrides = parser.parse_known_args()
    text = arguments.text.resolve()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        # compiled and tokenized once for all: a machine does that once, not once a run
        warm = ["trainer.max_steps=1", "trainer.limit_val_batches=1"]
        run(CONTENDER, text, folder / "warm", [*overrides, *warm])
        contenders = [
            run(CONTENDER, text, folder / f"seed{seed}", [*overrides, f"seed={seed}"]) for seed in arguments.seeds
        ]
        baseline = run(BASELINE, text, folder / "baseline", ["trainer.precision=32"], plain=True)
    seconds = statistics.mean(one["seconds"] for one in contenders)
    figures = {
        "benchmark": "time_to_loss",
        "baseline": baseline,
        "contenders": contenders,
        "mean_seconds": seconds,
        "mean_loss": statistics.mean(one["loss"] for one in contenders),
        "share_of_baseline": seconds / baseline["seconds"],
    }
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{'baseline':<12}{baseline['seconds']:7.1f} s   loss {baseline['loss']:.4f}")
    for seed, one in zip(arguments.seeds, contenders, strict=True):
        print(f"{f'seed {seed}':<12}{one['seconds']:7.1f} s   loss {one['loss']:.4f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
