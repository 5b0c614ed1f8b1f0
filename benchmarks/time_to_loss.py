"""Recipes against the public baseline recipe: wall-clock of the whole process, and the loss it ends with.

The baseline is ``experiment=shakespeare_char_cpu`` in fp32, with PyTorch's own operations alone (no C kernels, no
compilation); the contender ``experiment=speedrun_shakespeare_cpu``, once for each seed. With ``--gpu`` it is
``speedrun_shakespeare_gpu``, against the loss that nanoGPT publishes for its own recipe of that size. The loss is
measured apart from training, on the bundle that a run leaves: the whole last tenth of the text, windows of 64
(GPU: 256), nats per character.

    python benchmarks/time_to_loss.py path/to/tinyshakespeare.txt [--gpu] [--seeds 1 2 3] [overrides of the contender …]
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

BASELINE = "shakespeare_char_cpu"
CONTENDERS = {"cpu": ("speedrun_shakespeare_cpu", 64), "cuda": ("speedrun_shakespeare_gpu", 256)}  # and the window
PUBLISHED_LOSS = 1.4697  # of nanoGPT's config/train_shakespeare_char.py, as its README gives it


def run(
    experiment: str, text: Path, folder: Path, overrides: list[str], device: str, window: int, plain: bool = False
) -> dict[str, float]:
    """Train in a process of its own; its seconds from start to exit, and the loss of what it leaves."""
    main = "from slm.cli.train import main; main()"  # the command itself may lie anywhere
    settings = [f"experiment={experiment}", f"data.path={text}", f"run_dir={folder}", *overrides]
    command = [sys.executable, "-c", main, *settings]
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
    return {"seconds": seconds, "loss": loss_of(folder, text, device, window)}


@torch.inference_mode()
def loss_of(folder: Path, text: Path, device: str, window: int) -> float:
    """Mean nats per character over the last tenth of the text."""
    lm: Any = slm.load(folder, device=device, dtype=torch.float32)
    characters = text.read_text(encoding="utf-8")
    ids = torch.tensor(lm.tokenizer.encode(characters[int(0.9 * len(characters)) :]), device=device)
    n_windows = (len(ids) - 1) // window
    inputs, labels = (part[: n_windows * window].view(n_windows, window) for part in (ids[:-1], ids[1:]))
    total = sum(
        float(cross_entropy(lm.model(x).flatten(0, 1), y.flatten(), reduction="sum"))
        for x, y in zip(inputs.split(256), labels.split(256), strict=True)
    )
    return total / labels.numel()


def main() -> None:
    """Run, print, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--gpu", action="store_true", help="the recipe for a GPU; there is no baseline to run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments, overrides = parser.parse_known_args()
    text = arguments.text.resolve()
    device = "cuda" if arguments.gpu else "cpu"
    contender, window = CONTENDERS[device]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)

        def contend(name: str, *more: str) -> dict[str, float]:
            return run(contender, text, folder / name, [*overrides, *more], device, window)

        # compiled and tokenized once for all: a machine does that once, not once a run
        contend("warm", "trainer.max_steps=1", "trainer.limit_val_batches=1")
        contenders = [contend(f"seed{seed}", f"seed={seed}") for seed in arguments.seeds]
        if arguments.gpu:
            baseline = {"loss": PUBLISHED_LOSS}
        else:
            precision = ["trainer.precision=32"]
            baseline = run(BASELINE, text, folder / "baseline", precision, device, window, plain=True)
    seconds = statistics.mean(one["seconds"] for one in contenders)
    figures = {
        "benchmark": "time_to_loss",
        "baseline": baseline,
        "contenders": contenders,
        "mean_seconds": seconds,
        "mean_loss": statistics.mean(one["loss"] for one in contenders),
    }
    if not arguments.gpu:
        figures["share_of_baseline"] = seconds / baseline["seconds"]
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{'baseline':<12}{baseline.get('seconds', float('nan')):7.1f} s   loss {baseline['loss']:.4f}")
    for seed, one in zip(arguments.seeds, contenders, strict=True):
        print(f"{f'seed {seed}':<12}{one['seconds']:7.1f} s   loss {one['loss']:.4f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
