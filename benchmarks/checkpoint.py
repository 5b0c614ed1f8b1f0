"""What saving costs a training step: in the background, and with the step waiting for the disk.

A run of `slm-train`, each way in a process of its own, saves twice; a step lasts from its first micro-batch to the
next step's. Compared with the median of the steps during which nothing is saved: the step that saves, and those under
which the thread still writes. The first save makes the copy's memory, the second uses it again.

    python benchmarks/checkpoint.py [--steps 10] [--ways async,waiting] [overrides of slm-train …]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARMUP_STEPS = 2
SHAPE = (
    "model=gpt2_base", "model.params.vocab_size=50304", "tokenizer=byte", "data=text", "data.seq_len=512",
    "trainer.batch_size=4", "trainer.precision=bf16", "trainer.limit_val_batches=0", "callbacks=none",
)  # fmt: skip
WAYS = {"async": "trainer.async_save=true", "waiting": "trainer.async_save=false"}


def main() -> None:
    """Run both ways, print the table, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)  # this process is one of the runs
    arguments, overrides = parser.parse_known_args()
    if arguments.measure:
        print(json.dumps(measured(arguments.steps, [WAYS[arguments.measure], *overrides])))
        return
    figures: dict[str, Any] = {"benchmark": "checkpoint", "steps": arguments.steps}
    for way in arguments.ways.split(","):
        command = [sys.executable, __file__, "--measure", way, "--steps", str(arguments.steps), *overrides]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures[way] = json.loads(answer.stdout.splitlines()[-1])
    print(f"{platform.platform()}, {os.cpu_count()} cores")
    print(" ".join([*SHAPE, *overrides]))
    for way in arguments.ways.split(","):
        print(way, *(f"{name} {value}" for name, value in figures[way].items()), sep="\n  ")
    print(json.dumps(figures))


def measured(steps: int, overrides: list[str]) -> dict[str, Any]:
    """One run in this process: seconds, and ratios to a step during which nothing is saved."""
    import pytorch_lightning as pl
    import torch
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    from slm.cli.composition import CONF, VERSION_BASE
    from slm.cli.train import checked_run
    from slm.training import runner
    from slm.training.run import checkpoint_io
    from slm.training.run.checkpoints import Checkpoints

    starts: list[float] = []
    saves: list[tuple[float, float]] = []
    writes: list[tuple[float, float]] = []

    class Starts(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if len(starts) == trainer.global_step:
                starts.append(time.perf_counter())

    Checkpoints.save = timed(Checkpoints.save, saves)  # type: ignore[method-assign]
    checkpoint_io.write_checkpoint = timed(checkpoint_io.write_checkpoint, writes)
    save_every = max(1, (steps - WARMUP_STEPS) // 2)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        fixed = [f"run_dir={folder}/run", f"data.path={Path(__file__).parents[1] / 'docs'}"]
        fixed += [f"trainer.max_steps={steps}", f"trainer.save_every={save_every}", "trainer.val_every=100000"]
        with initialize_config_module(CONF, **VERSION_BASE):
            composed: Any = OmegaConf.to_container(compose("train", [*SHAPE, *fixed, *overrides]), resolve=True)
        with Path(os.devnull).open("w") as sink, contextlib.redirect_stderr(sink):
            runner.train(checked_run(composed), composed, overrides, more_callbacks=[Starts()])
        size = (Path(folder) / "run/checkpoints/last.ckpt").stat().st_size
    return {"torch": torch.__version__, "checkpoint_mb": round(size / 1e6, 1), **compared(starts, saves, writes)}


def timed(function: Callable[..., None], into: list[tuple[float, float]]) -> Callable[..., None]:
    """`function`, noting when each call began and ended."""

    def call(*arguments: Any, **named: Any) -> None:
        begun = time.perf_counter()
        function(*arguments, **named)
        into.append((begun, time.perf_counter()))

    return call


def compared(
    starts: list[float], saves: list[tuple[float, float]], writes: list[tuple[float, float]]
) -> dict[str, Any]:
    """The steps by what went on beside them; the last save, at the end of training, has no step after it."""
    steps = list(zip(starts[WARMUP_STEPS:], starts[WARMUP_STEPS + 1 :], strict=False))

    def beside(spans: list[tuple[float, float]], step: tuple[float, float]) -> bool:
        return any(begun < step[1] and ended > step[0] for begun, ended in spans)

    normal = statistics.median(b - a for a, b in steps if not beside([*saves, *writes], (a, b)))
    saving = [(b - a) / normal for a, b in steps if beside(saves, (a, b))]
    after = [(b - a) / normal for a, b in steps if beside(writes, (a, b)) and not beside(saves, (a, b))]
    return {
        "normal_step_s": round(normal, 3),
        "saving_steps": [round(ratio, 3) for ratio in saving],
        "steps_under_writing": [round(ratio, 3) for ratio in after],
        "step_waits_s": [round(ended - begun, 3) for begun, ended in saves[: len(saving)]],
        "write_s": [round(ended - begun, 3) for begun, ended in writes[: len(saving)]],
    }


if __name__ == "__main__":
    main()
