"""Tokens a second over model size, window and micro-batch: a training step alone, as `slm-train` makes it.

One thing is varied at a time, the rest is as in the middle of its list; each point is the median of a few steps after
one that is not counted. `--plot` draws them (matplotlib). It stops beginning new points after `--minutes`.

    python benchmarks/scaling.py [--minutes 5] [--plot docs/scaling.svg] [--precision bf16] [--device cpu]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from slm.models.config import ModelConfig
from slm.models.contract import build_loss, build_model
from slm.training.optim.parameter_groups import parameter_groups
from slm.training.process import keep_freed_memory

VOCAB_SIZE = 8192
STEPS = 2
# width, layers: about 1 M to 350 M parameters with their embedding
SIZES = [(64, 4), (128, 4), (192, 6), (320, 8), (512, 10), (768, 12), (1024, 26)]
WINDOWS = [64, 128, 256, 512, 1024, 2048, 4096]
BATCHES = [1, 2, 4, 8, 16, 32]
MIDDLE = {"size": (320, 8), "window": 256, "batch": 4}


def model_of(dim: int, layers: int, window: int, device: torch.device) -> Any:
    """A GPT-2 of heads of 64, with fresh weights."""
    transformer = {"dim": dim, "n_layers": layers, "n_heads": dim // 64}
    values = {
        "name": "gpt",
        "params": {"max_seq_len": window, "vocab_size": VOCAB_SIZE},
        "modules": {"transformer": transformer},
    }
    return build_model(ModelConfig.from_dict(values)).to(device)


def measure(size: tuple[int, int], window: int, batch: int, device: torch.device, bf16: bool) -> dict[str, Any]:
    """The median of a few steps: forward, backward, clipping, AdamW."""
    torch.manual_seed(0)
    model = model_of(*size, window, device)
    loss = build_loss(model.config)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-4, fused=True)
    ids = torch.randint(VOCAB_SIZE, (batch, window + 1), device=device)
    seconds = []
    for _ in range(1 + STEPS):
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            nll = loss(model.hidden_states(ids[:, :-1]), model.head_weight, ids[:, 1:], VOCAB_SIZE)
        (nll / (batch * window)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    parameters = sum(p.numel() for p in model.parameters())
    rate = batch * window / statistics.median(seconds[1:])
    return {"parameters": parameters, "window": window, "batch": batch, "tokens_per_s": round(rate, 1)}


def points() -> list[tuple[str, dict[str, Any]]]:
    """What is varied, and the settings; the cheapest first."""
    varied = {"size": SIZES, "window": WINDOWS, "batch": BATCHES}
    found = [(name, {**MIDDLE, name: value}) for name, values in varied.items() for value in values]
    return sorted(found, key=lambda point: cost(point[1]))


def cost(setting: dict[str, Any]) -> float:
    """What a step takes, roughly: the products of its parameters and tokens."""
    dim, layers = setting["size"]
    return float((12 * dim * dim * layers + VOCAB_SIZE * dim) * setting["window"] * setting["batch"])


def plot(results: dict[str, list[dict[str, Any]]], file: Path, title: str) -> None:
    """Three panels, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    keys = {"size": "parameters", "window": "window", "batch": "batch"}
    labels = {"size": "parameters", "window": "window (tokens)", "batch": "micro-batch (windows)"}
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True, layout="constrained")
    for axis, (name, ones) in zip(axes, results.items(), strict=True):
        ones = sorted(ones, key=lambda one: one[keys[name]])
        axis.loglog([one[keys[name]] for one in ones], [one["tokens_per_s"] for one in ones], "o-")
        axis.set_xlabel(labels[name])
        axis.grid(which="both", alpha=0.3)
    axes[0].set_ylabel("tokens a second")
    figure.suptitle(title, fontsize=9)
    figure.savefig(file)


def main() -> None:
    """Run, print the table, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="bf16: autocast")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    keep_freed_memory()
    device = torch.device(arguments.device)
    machine = f"{os.cpu_count()} cores" if device.type == "cpu" else torch.cuda.get_device_name(device)
    print(
        f"{platform.platform()}, {machine}, torch {torch.__version__}, {arguments.precision}, vocabulary {VOCAB_SIZE}"
    )
    results: dict[str, list[dict[str, Any]]] = {"size": [], "window": [], "batch": []}
    left_out, began = [], time.perf_counter()
    for name, setting in points():
        if time.perf_counter() - began > 60 * arguments.minutes:
            left_out.append({name: setting[name]})
            continue
        result = measure(**setting, device=device, bf16=arguments.precision == "bf16")
        results[name].append(result)
        print(f"{name:<8}{result}", flush=True)
    middle = "else {0[0]} x {0[1]} layers, window {1}, micro-batch {2}".format(*MIDDLE.values())
    if arguments.plot:
        plot(results, arguments.plot, f"A training step, {machine}, {arguments.precision}; {middle}")
    figures = {"benchmark": "scaling", "precision": arguments.precision, "device": arguments.device, "results": results}
    print(json.dumps({**figures, "left_out": left_out}))


if __name__ == "__main__":
    main()
