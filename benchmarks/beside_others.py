"""Training and decoding while other programs want the cores: commands of two clones in turns, tokens a second.

    python benchmarks/beside_others.py --against path/to/another/clone/.venv/bin [--turns 5] [--steps 60]

``train`` is the demo's recipe, ``decode`` four prompts side by side with the model that it leaves. Beside them run
nothing, busy loops, or a training of plain PyTorch with its threads as they are by default. Each figure is what the
command itself says, after its first steps; medians over the turns are compared. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

LOOP = "while True: pass"
TRAINING = """
import torch
layers = [torch.nn.TransformerEncoderLayer(192, 3, 768, dropout=0.0, batch_first=True) for _ in range(4)]
model = torch.nn.Sequential(*layers)
optimizer = torch.optim.AdamW(model.parameters())
while True:
    model(torch.randn(8, 128, 192)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""
BESIDE = {"nothing": [], "a loop": [LOOP], "two loops": [LOOP, LOOP], "a training": [TRAINING]}
MEASURED = [("train", "nothing"), ("train", "two loops"), ("train", "a training")]
MEASURED += [("decode", "nothing"), ("decode", "a loop")]
WORDS = ("def main(", "import os", "class A", "for i in")


@contextlib.contextmanager
def beside(programs: list[str]) -> Iterator[None]:
    """Python programs that run meanwhile."""
    running = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def command(folder: Path, program: Path, *arguments: str) -> None:
    """Run one to its end."""
    environment = {**os.environ, "SLM_CACHE_DIR": str(folder / "cache")}
    ended = subprocess.run([program, *arguments], capture_output=True, text=True, env=environment)
    if ended.returncode:
        raise SystemExit(f"{program.name} {' '.join(arguments)} ended with status {ended.returncode}\n{ended.stderr}")


def train(folder: Path, commands: Path, run: Path, steps: int) -> float:
    """Tokens a second, the median of the rows of ``metrics.csv`` after the first."""
    sizes = [f"trainer.max_steps={steps}", "trainer.log_every=5", "trainer.limit_val_batches=1"]
    command(folder, commands / "slm-train", "experiment=speedrun_stdlib", f"run_dir={run}", "callbacks=none", *sizes)
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as lines:
        rates = [float(row["speed/tokens_per_s"]) for row in csv.DictReader(lines) if row["speed/tokens_per_s"]]
    return statistics.median(rates[1:])


def decode(folder: Path, commands: Path, run: Path, out: Path, tokens: int) -> float:
    """Tokens a second of all texts together, after the first token of each."""
    settings = [f"generation.max_new_tokens={tokens}", "generation.stop_at_eos=false", "generation.seed=1"]
    settings += ["generation.overflow=slide", "generation.chat=false"]
    command(
        folder, commands / "slm-generate", f"run={run}", f"prompts={folder / 'prompts.txt'}", f"out={out}", *settings
    )
    with out.open(encoding="utf-8") as lines:
        return sum(json.loads(line)["tokens_per_second"] for line in lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="the folder with another clone's commands")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--only", choices=("train", "decode"))
    options = parser.parse_args()
    clones = {"this": Path(sys.executable).parent, "other": options.against}
    rates: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "prompts.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
        for name, commands in clones.items():
            train(folder, commands, folder / name, 10)  # compiled and tokenized once for all
        for turn in range(options.turns):
            for what, others in MEASURED:
                for name, commands in clones.items():
                    if options.only in (None, what):
                        with beside(BESIDE[others]):
                            if what == "train":
                                rate = train(folder, commands, folder / f"{name}{turn}{others}", options.steps)
                            else:
                                out = folder / f"{name}{turn}{others}.jsonl"
                                rate = decode(folder, commands, folder / "this", out, options.tokens)
                        rates.setdefault(f"{what} beside {others}", {}).setdefault(name, []).append(rate)
    print(f"{platform.platform()}, {os.cpu_count()} cores")
    medians = {of: {name: statistics.median(each) for name, each in found.items()} for of, found in rates.items()}
    for of, found in medians.items():
        print(f"{of:<24}{found['this']:9.0f}{found['other']:9.0f}   {found['this'] / found['other']:.2f} x")
    print(json.dumps({"benchmark": "beside_others", "medians": medians, "rates": rates}))


if __name__ == "__main__":
    main()
