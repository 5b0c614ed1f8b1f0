"""A training step of slm beside others: the same shape written plainly, transformers, litgpt where it is installed.

Each contender is a process of its own, with its own allocator and its own peak of memory. They take turns, so that
whatever else the machine does hits all alike; a turn also times a product of two square matrices, the rate that
utilisation is stated against. A step is forward, backward, clipping and AdamW. Medians are compared. On a CPU a turn is
a step; on a GPU ten that nobody waits between, after two that are not counted, and then the memory is given back.

    python benchmarks/train.py [--turns 5] [--model gpt2_base] [--batch 4] [--seq-len 512] [--precision bf16] …
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

VOCAB_SIZE = 50304
MATRIX = {"cpu": 2048, "cuda": 8192}
STEPS_A_TURN = {"cpu": 1, "cuda": 10}
SETTLING_STEPS = {"cpu": 0, "cuda": 2}  # of a turn, not counted
WARMUP_TURNS = 1
LOSS = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


# ---- contenders: a model, and the mean loss of ids (B, T) and labels (B, T) ----


def slm_config(arguments: argparse.Namespace) -> Any:
    """Our configuration of the shape."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    from slm.cli.composition import CONF, VERSION_BASE
    from slm.models.config import ModelConfig
    from slm.weights.fine_tuning import shape_values

    with initialize_config_module(CONF, **VERSION_BASE):
        overrides = [f"model={arguments.model}", f"model.params.vocab_size={VOCAB_SIZE}"]
        values = OmegaConf.to_container(compose("train", overrides).model, resolve=True)
    return ModelConfig.from_dict(shape_values(values))


def slm(arguments: argparse.Namespace) -> tuple[nn.Module, LOSS]:
    """As `slm-train` makes a step; what Lightning adds, `train_overhead.py` measures."""
    from slm.models.contract import build_loss, build_model
    from slm.training.compiled import compiled_parts
    from slm.training.process import keep_freed_memory

    keep_freed_memory()
    config = slm_config(arguments)
    model: Any = build_model(config)
    loss = build_loss(config)
    if arguments.device == "cuda":  # as trainer=gpu has it
        for part in compiled_parts(model):
            part.compile()

    def mean_loss(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        hidden = model(ids, return_hidden=True)
        total: torch.Tensor = loss(hidden, model.head_weight, labels, VOCAB_SIZE)
        return total / labels.numel()

    return model, mean_loss


def plain(arguments: argparse.Namespace) -> tuple[nn.Module, LOSS]:
    """The same modules as one would write the loop by hand: all logits, PyTorch's cross-entropy, no kernels."""
    from slm.models.contract import build_model

    model = build_model(slm_config(arguments))
    return model, lambda ids, labels: cross_entropy(model(ids).flatten(0, 1), labels.flatten())


def transformers(arguments: argparse.Namespace) -> tuple[nn.Module, LOSS]:
    """GPT-2 of transformers, its own loss."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = slm_config(arguments).modules.transformer
    config = GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_embd=shape.dim,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        use_cache=False,
    )
    model = GPT2LMHeadModel(config)
    return model, lambda ids, labels: model(input_ids=ids, labels=labels).loss


def transformers_compiled(arguments: argparse.Namespace) -> tuple[nn.Module, LOSS]:
    """The same, with what `torch_compile=True` of its Trainer does."""
    model, loss = transformers(arguments)
    model.compile()
    return model, loss


def litgpt(arguments: argparse.Namespace) -> tuple[nn.Module, LOSS]:
    """litgpt's GPT of the same shape, the loss of its pretraining script."""
    from litgpt import GPT, Config

    shape = slm_config(arguments)
    inner = shape.modules.transformer
    config = Config(
        block_size=shape.params.max_seq_len,
        padded_vocab_size=VOCAB_SIZE,
        n_layer=inner.n_layers,
        n_head=inner.n_heads,
        n_embd=inner.dim,
        bias=True,
    )
    model = GPT(config)
    return model, lambda ids, labels: cross_entropy(model(ids).flatten(0, 1), labels.flatten())


CONTENDERS = {
    "slm": slm,
    "plain": plain,
    "transformers": transformers,
    "transformers_compiled": transformers_compiled,
    "litgpt": litgpt,
}


# ---- a contender's process ----


def work(arguments: argparse.Namespace) -> None:
    """Make a turn for every line that comes in; answer with the seconds of a step and the peak of memory in MB."""
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    model, loss = CONTENDERS[arguments.worker](arguments)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
    ids = torch.randint(VOCAB_SIZE, (arguments.batch, arguments.seq_len + 1), device=device)
    bf16 = arguments.precision == "bf16"
    print(json.dumps(sum(p.numel() for p in model.parameters())), flush=True)

    means = []

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            mean = loss(ids[:, :-1], ids[:, 1:])
        mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        means.append(mean.detach())

    for _ in sys.stdin:
        for _ in range(SETTLING_STEPS[device.type]):
            step()
        seconds = seconds_of(step, STEPS_A_TURN[device.type], device)
        print(json.dumps([seconds, peak_mb(device), means[-1].item()]), flush=True)
        means.clear()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def seconds_of(work: Callable[[], object], times: int, device: torch.device) -> float:
    """Of one of several runs that nobody waits between."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return (time.perf_counter() - start) / times


def peak_mb(device: torch.device) -> float:
    """Of the device's memory, or of the process where that is the computer's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


class Contender:
    """A process that makes a turn when it is told to."""

    def __init__(self, name: str, given: list[str]) -> None:
        command = [sys.executable, __file__, "--worker", name, *given]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, **pipes)
        self.name = name
        self.parameters = int(self._answer())
        self.seconds: list[float] = []
        self.peak_mb = 0.0
        self.loss = 0.0

    def turn(self) -> None:
        """One turn; its step's time is kept."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds, self.peak_mb, self.loss = json.loads(self._answer())
        self.seconds.append(seconds)

    def close(self) -> None:
        """End the process."""
        self.process.communicate()

    def _answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self.process.wait()}; try --worker {self.name} alone")
        return line


# ---- the comparison ----


def matrix_rate(precision: str, device: torch.device) -> float:
    """GFLOP/s of the best of a few products of square matrices."""
    size, n_products = MATRIX[device.type], STEPS_A_TURN[device.type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    best = min(seconds_of(lambda: a @ b, n_products, device) for _ in range(4))
    return 2 * size**3 / best / 1e9


def compare(arguments: argparse.Namespace, given: list[str]) -> dict[str, Any]:
    """All contenders in turns."""
    device = torch.device(arguments.device)
    contenders = [Contender(name, given) for name in arguments.contenders]
    rates = []
    for turn in range(WARMUP_TURNS + arguments.turns):
        rates.append(matrix_rate(arguments.precision, device))
        for contender in contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]:
            contender.turn()
    for contender in contenders:
        contender.close()
    rate = statistics.median(rates)
    tokens = arguments.batch * arguments.seq_len
    shape = slm_config(arguments).modules.transformer
    # beside the 6 N of the parameters 12 L H D T (Chowdhery et al. 2022, appendix B)
    attention = 12.0 * shape.n_layers * shape.n_heads * shape.head_dim * arguments.seq_len
    figures: dict[str, Any] = {"benchmark": "train", **vars(arguments), "matrix_gflops": round(rate, 1)}
    for contender in contenders:
        seconds = statistics.median(contender.seconds[WARMUP_TURNS:])
        figures[contender.name] = {
            "step_s": round(seconds, 4),
            "tokens_per_s": round(tokens / seconds, 1),
            "of_matrix_rate": round(6 * contender.parameters * tokens / seconds / 1e9 / rate, 4),
            "mfu": round((6 * contender.parameters + attention) * tokens / seconds / 1e9 / rate, 4),
            "peak_mb": round(contender.peak_mb),
            "loss": round(contender.loss, 3),
        }
    for other in figures.keys() & {"transformers", "transformers_compiled"}:
        ours, theirs = figures["slm"], figures[other]
        figures[f"times_{other}"] = round(ours["tokens_per_s"] / theirs["tokens_per_s"], 3)
        figures[f"memory_of_{other}"] = round(ours["peak_mb"] / theirs["peak_mb"], 3)
    return figures


def main() -> None:
    """Run, print the table, end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    installed = ["slm", "plain", *filter(importlib.util.find_spec, ("transformers", "litgpt"))]
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--model", default="gpt2_base", help="one of gpt2_*")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="bf16: autocast")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=installed)
    parser.add_argument("--worker", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        with contextlib.suppress(BrokenPipeError):
            work(arguments)
        return
    del arguments.worker
    figures = compare(arguments, sys.argv[1:])
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{arguments.model}, {arguments.batch} x {arguments.seq_len}, {arguments.precision}, {arguments.device}")
    for name in arguments.contenders:
        print(f"{name:<14}{figures[name]}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
