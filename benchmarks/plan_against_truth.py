"""What `slm-plan` says beside what runs really take: parameters, peak memory, the time of a step, its own time.

Each run is a process of its own, which makes a few steps and a checkpoint between them. Its peak is what its resident
memory grew by since training's modules were imported; its step the median after the first. The plan is made with the
same settings, by the command itself, its timings forgotten before.

    python benchmarks/plan_against_truth.py [--cases base gpt2 …] [--steps 4]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from slm.models.kernels.library import library

SMOLLM2 = ["model=smollm2_135m", "model.params.vocab_size=49152"]
GPT2 = ["model=gpt2_base", "model.params.vocab_size=50257", "trainer.batch_size=4"]
WEIGHTS = "model.weights=WEIGHTS"  # a SmolLM2 that was trained for one step
CASES = {
    "base": [],
    "gpt2": [*GPT2, "data.seq_len=512"],
    "gpt2_recompute": [*GPT2, "data.seq_len=1024", "trainer.recompute=true"],
    "smollm2": [*SMOLLM2, "trainer.batch_size=4", "data.seq_len=512"],
    "lora": [WEIGHTS, "adapter=lora", "data.seq_len=512"],
    "dpo": [WEIGHTS, "task=dpo", "data.path=PAIRS", "data.val_path=HELD_OUT", "data.seq_len=512"],
}
SHORT = ["trainer.limit_val_batches=1", "callbacks=progress"]
OF_WEIGHTS = [*SMOLLM2, "trainer.batch_size=1", "data.seq_len=32", "trainer.max_steps=1", *SHORT]
PAIRS = 300


def status(name: str) -> int:
    """A line of ``/proc/self/status``, in bytes."""
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def train(overrides: list[str]) -> None:
    """In a process of its own: print the figures of a run."""
    from slm.training.lean_lightning import import_lightning

    import_lightning()
    import pytorch_lightning as pl
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    from slm.cli.composition import CONF, VERSION_BASE
    from slm.cli.train import checked_run, with_implied
    from slm.training.runner import train as run

    class Clock(pl.Callback):
        """When each micro-batch ended."""

        def __init__(self) -> None:
            self.ends: list[tuple[int, float]] = []
            self.parameters = 0

        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.parameters = sum(p.numel() for p in pl_module.parameters())
            self.ends.append((0, time.perf_counter()))

        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step != self.ends[-1][0]:
                self.ends.append((trainer.global_step, time.perf_counter()))

    with initialize_config_module(CONF, **VERSION_BASE):
        composed: Any = OmegaConf.to_container(compose("train", with_implied(overrides)), resolve=True)
    clock, config, start = Clock(), checked_run(composed), status("VmRSS")
    run(config, composed, overrides, more_callbacks=[clock])
    ends = [at for _, at in clock.ends]
    step_s = statistics.median(after - before for before, after in itertools.pairwise(ends[1:])) if ends[2:] else 0.0
    print(json.dumps({"peak": status("VmHWM") - start, "parameters": clock.parameters, "step_s": step_s}))


def planned(overrides: list[str], folder: Path) -> dict[str, Any]:
    """What the command says, and how long it took."""
    began = time.perf_counter()
    command = [str(Path(sys.executable).with_name("slm-plan")), *overrides, "json=true"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ, cwd=folder)
    return {**json.loads(answer.stdout), "plan_s": time.perf_counter() - began}


def trained(overrides: list[str]) -> dict[str, Any]:
    """Figures of a run in a process of its own."""
    command = [sys.executable, __file__, "--train", *overrides]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def compare(name: str, overrides: list[str], folder: Path) -> dict[str, Any]:
    """One case, planned and trained."""
    plan, truth = planned(overrides, folder), trained([*overrides, f"run_dir={folder / name}"])
    figures = {
        "case": name,
        "plan_s": round(plan["plan_s"], 1),
        "parameters": [plan["parameters"]["total"], truth["parameters"]],
        "peak_mb": [round(plan["memory"]["peak"] / 1e6), round(truth["peak"] / 1e6)],
        "step_s": [round(plan["time"]["step_s"], 3), round(truth["step_s"], 3)],
    }
    for figure in ("peak_mb", "step_s"):
        said, found = figures[figure]
        figures[f"{figure}_off_percent"] = round(100 * (said / found - 1), 1) if found else None
    print(figures, flush=True)
    return figures


def main() -> None:
    """Run, print a line a case, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--train", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train is not None:
        train(arguments.train)
        return
    steps = [f"trainer.max_steps={arguments.steps}", f"trainer.save_every={arguments.steps // 2}", *SHORT]
    print(f"{platform.platform()}, {os.cpu_count()} cores, {arguments.steps} steps a run")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        os.environ["SLM_CACHE_DIR"] = str(folder / "cache")  # no timings of before
        library()  # compiled there, ahead of the clock
        names = _inputs(folder, arguments.cases)
        for name in {"base", "lora"} & {"base", *arguments.cases}:  # data is prepared once, ahead of the clock
            planned([*(_filled(one, names) for one in CASES[name]), "timing_s=0.0"], folder)
        cases = {name: [_filled(one, names) for one in CASES[name]] for name in arguments.cases}
        found = [compare(name, [*overrides, *steps], folder) for name, overrides in cases.items()]
    print(json.dumps({"benchmark": "plan_against_truth", "steps": arguments.steps, "cases": found}))


def _inputs(folder: Path, cases: list[str]) -> dict[str, str]:
    """Weights and pairs, where a case asks for them."""
    names = {"WEIGHTS": str(folder / "start/model"), "PAIRS": f"{folder}/few.jsonl", "HELD_OUT": f"{folder}/out.jsonl"}
    if {"lora", "dpo"} & set(cases):
        trained([*OF_WEIGHTS, f"run_dir={folder / 'start'}"])
    if "dpo" in cases:
        script = Path(__file__).parents[1] / "scripts/make_toy_preferences.py"
        subprocess.run([sys.executable, script, folder / "toy"], check=True, stdout=subprocess.DEVNULL)
        for source, target in (("pairs", "PAIRS"), ("held_out", "HELD_OUT")):
            lines = (folder / f"toy/{source}.jsonl").read_text().splitlines()[:PAIRS]
            Path(names[target]).write_text("\n".join(lines) + "\n")
    return names


def _filled(setting: str, names: dict[str, str]) -> str:
    key, _, value = setting.partition("=")
    return f"{key}={names.get(value, value)}"


if __name__ == "__main__":
    main()
