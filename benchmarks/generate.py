"""Generation beside `transformers` in one interleaved run, with the machine's own read bandwidth as the limit.

    python benchmarks/generate.py [--model gpt2_base] [--repeats 5] [--many 1000] [--only single,…] [--dtypes fp32,…]
        [--device auto|cpu|cuda]

Random weights of one shape, the same on both sides. Tokens are greedy and compared. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from safetensors.torch import save_file

from slm.cli.composition import CONF, VERSION_BASE
from slm.generation.config import GenerationConfig
from slm.generation.engine import Engine
from slm.generation.graphed_step import GraphedSteps
from slm.generation.request import Request, Token
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.models.inference.prepared import prepare_for_inference
from slm.models.kernels.library import library
from slm.models.kernels.products import product_few
from slm.weights.fine_tuning import shape_values
from slm.weights.hugging_face import family_of
from slm.weights.name_table import their_tensors

PROMPT, NEW, PREFILL = 32, 128, 512
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MODES = (*DTYPES, "int8", "int4")


class Ours:
    """A model of ours in one dtype or quantization."""

    def __init__(self, config: ModelConfig, weights: dict[str, torch.Tensor], mode: str, device: torch.device) -> None:
        self.model = build_model(config).eval()
        self.model.load_state_dict(weights)
        quantized = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.model.to(device, DTYPES.get(mode, quantized))
        self.steps = GraphedSteps() if device.type == "cuda" else None
        prepare_for_inference(self.model, mode if mode in ("int8", "int4") else None)

    def generate(self, prompts: list[list[int]], budgets: list[int], rows: int = 16) -> list[list[int]]:
        """Greedy texts; `rows` at a time."""
        settings = GenerationConfig(greedy=True, stop_at_eos=False, batch_size=rows)
        texts: list[list[int]] = [[] for _ in prompts]
        for event in Engine(self.model, settings, eos_id=0, steps=self.steps).run(
            [Request(prompt, budget) for prompt, budget in zip(prompts, budgets, strict=True)]
        ):
            if isinstance(event, Token):
                texts[event.index].append(event.token_id)
        return texts

    def prefill(self, ids: torch.Tensor) -> None:
        """Up to the logits of the next token."""
        with torch.inference_mode():
            cache = self.model.make_cache(1, ids.shape[1])
            self.model.head(self.model.hidden_states(ids.to(self.model.head_weight.device), cache)[:, -1])


class Theirs:
    """The same weights in `transformers`."""

    def __init__(self, config: ModelConfig, weights: dict[str, torch.Tensor], mode: str, device: torch.device) -> None:
        family = family_of(config)
        with tempfile.TemporaryDirectory() as folder:  # the names in their files are not always those of their modules
            Path(folder, "config.json").write_text(json.dumps(family.write_config(config)))
            save_file(
                their_tensors(family.table(config), weights, config.vocab_size),
                Path(folder, "model.safetensors"),
                {"format": "pt"},
            )
            model, said = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True
            )
        assert not said["missing_keys"], said
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        self.model = model.eval().to(device, DTYPES[mode])

    def generate(self, prompts: list[list[int]], budgets: list[int]) -> list[list[int]]:
        """One batch, padded on the left, up to the largest budget."""
        width = max(map(len, prompts))
        device = self.model.device
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        with torch.inference_mode():
            out = self.model.generate(ids, attention_mask=mask, max_new_tokens=max(budgets), do_sample=False)
        return [row[width : width + budget] for row, budget in zip(out.tolist(), budgets, strict=True)]

    def prefill(self, ids: torch.Tensor) -> None:
        """Up to the logits of the next token."""
        with torch.inference_mode():
            self.model(ids.to(self.model.device), use_cache=True, logits_to_keep=1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gpt2_base", help="a choice of conf/model")
    parser.add_argument("--vocab-size", type=int, default=50257)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--many", type=int, default=1000, help="prompts of the file")
    parser.add_argument("--only", type=names_of(PARTS), default=list(PARTS), help="parts: " + ",".join(PARTS))
    parser.add_argument("--dtypes", type=names_of(MODES), help="of ours: " + ",".join(MODES))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options = parser.parse_args()
    on_gpu = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if on_gpu else "cpu")
    if on_gpu and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU that torch can use here; --device cpu")
    options.dtypes = options.dtypes or [mode for mode in MODES if not (on_gpu and mode == "int4")]
    if on_gpu and "int4" in options.dtypes:
        parser.error("--device cuda: int4 has a kernel on the CPU only; --dtypes fp32,bf16,int8")
    config, weights = made(options.model, options.vocab_size)
    if config.params.max_seq_len < PREFILL:
        parser.error(f"--model {options.model}: takes {config.params.max_seq_len} positions and {PREFILL} are needed")
    size = sum(tensor.numel() for tensor in weights.values())
    ours = {mode: Ours(config, weights, mode, device) for mode in options.dtypes}
    theirs = {mode: Theirs(config, weights, mode, device) for mode in options.dtypes if mode in DTYPES}
    print(f"{options.model}, {size:,} parameters, {torch.get_num_threads()} threads, {os.cpu_count()} cores")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {platform.platform()}", flush=True)
    results: dict[str, Any] = {"model": options.model, "parameters": size, "threads": torch.get_num_threads(),
                               "device": torch.cuda.get_device_name() if on_gpu else "cpu"}  # fmt: skip
    for part in options.only:
        PARTS[part](ours, theirs, config, options, results)
    print(json.dumps(results))


def single(ours: Any, theirs: Any, config: ModelConfig, options: Any, results: dict[str, Any]) -> None:
    """Batch 1."""
    prompt = random_prompts(1, [PROMPT], config.vocab_size)[0]
    runs = {f"ours {mode}": lambda m=m: m.generate([prompt], [NEW]) for mode, m in ours.items()}
    runs |= {f"transformers {mode}": lambda m=m: m.generate([prompt], [NEW]) for mode, m in theirs.items()}
    bandwidth: list[float] = []
    device = next(iter(ours.values())).model.head_weight.device
    rates = interleaved(runs, NEW, options.repeats, lambda: bandwidth.append(read_bandwidth(device)))
    limit = statistics.median(bandwidth) / (4 * results["parameters"])
    print(f"batch 1: {statistics.median(bandwidth) / 1e9:.1f} GB/s would allow {limit:.1f} tokens/s in fp32")
    report("single", rates, results)
    results["single"]["fp32_limit"] = round(limit, 2)
    if "bf16" in ours:
        results["single"]["bf16_share_of_limit"] = round(rates["ours bf16"] / (2 * limit), 3)
    if "fp32" in ours:
        same = ours["fp32"].generate([prompt], [NEW]) == theirs["fp32"].generate([prompt], [NEW])
        print(f"  greedy tokens equal to transformers': {same}")
        results["single"] |= {"fp32_share_of_limit": round(rates["ours fp32"] / limit, 3), "tokens_equal": same}


def prefill(ours: Any, theirs: Any, config: ModelConfig, options: Any, results: dict[str, Any]) -> None:
    """A prompt of 512 tokens."""
    ids = torch.tensor(random_prompts(1, [PREFILL], config.vocab_size))
    runs = {f"ours {mode}": lambda m=m: m.prefill(ids) for mode, m in ours.items()}
    runs |= {f"transformers {mode}": lambda m=m: m.prefill(ids) for mode, m in theirs.items()}
    print(f"prefill of {PREFILL}")
    report("prefill", interleaved(runs, PREFILL, options.repeats), results)


def batch(ours: Any, theirs: Any, config: ModelConfig, options: Any, results: dict[str, Any]) -> None:
    """Sixteen prompts of mixed lengths, the same budget each."""
    lengths = [random.Random(5).randrange(8, 97) for _ in range(16)]
    prompts, budgets = random_prompts(16, lengths, config.vocab_size), [NEW] * 16
    runs = {f"ours {mode}": lambda m=m: m.generate(prompts, budgets) for mode, m in ours.items()}
    runs |= {f"transformers {mode}": lambda m=m: m.generate(prompts, budgets) for mode, m in theirs.items()}
    print("batch 16, prompts of 8 to 96 tokens")
    report("batch", interleaved(runs, 16 * NEW, options.repeats), results)


def many(ours: Any, theirs: Any, config: ModelConfig, options: Any, results: dict[str, Any]) -> None:
    """A file of prompts of mixed lengths and budgets; theirs in batches of 16 in the file's order."""
    draw = random.Random(6)
    lengths = [draw.randrange(8, 97) for _ in range(options.many)]
    budgets = [draw.randrange(4, 129) for _ in range(options.many)]
    prompts = random_prompts(options.many, lengths, config.vocab_size)

    def in_batches(model: Any) -> None:
        for start in range(0, len(prompts), 16):
            model.generate(prompts[start : start + 16], budgets[start : start + 16])

    runs: dict[str, Callable[[], Any]] = {}
    for mode, model in ours.items():
        runs[f"ours {mode}"] = lambda m=model: m.generate(prompts, budgets, rows=32)
        if mode in theirs:
            runs[f"transformers {mode}"] = lambda m=theirs[mode]: in_batches(m)
    print(f"{options.many} prompts of mixed lengths and budgets")
    report("many", interleaved(runs, sum(budgets), 1, warm=False), results)


PARTS = {"single": single, "prefill": prefill, "batch": batch, "many": many}


def names_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Reads some of these names, with commas between."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: pick from {','.join(known)}")
        return names

    return read


def made(name: str, vocab_size: int) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """A preset's shape with random weights."""
    with initialize_config_module(CONF, **VERSION_BASE):
        overrides = [f"model={name}", f"model.params.vocab_size={vocab_size}", "model.params.vocab_multiple=1"]
        values: Any = OmegaConf.to_container(compose("train", overrides=overrides).model, resolve=True)
    config = ModelConfig.from_dict(shape_values(values))
    torch.manual_seed(0)
    return config, dict(build_model(config).state_dict())


def random_prompts(n: int, lengths: list[int], vocab_size: int) -> list[list[int]]:
    """Token ids of `n` prompts."""
    draw = random.Random(7)
    return [[draw.randrange(1, vocab_size) for _ in range(length)] for length in lengths[:n]]


def interleaved(
    runs: dict[str, Callable[[], Any]],
    tokens: int,
    repeats: int,
    between: Callable[[], Any] = lambda: None,
    warm: bool = True,
) -> dict[str, float]:
    """Tokens a second of each, the median of rounds in which every one has its turn."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + warm):
        between()
        for name, run in runs.items():
            wait_for_gpu()
            start = time.perf_counter()
            run()
            wait_for_gpu()
            if turn >= warm:
                seconds[name].append(time.perf_counter() - start)
    return {name: tokens / statistics.median(times) for name, times in seconds.items()}


def report(part: str, rates: dict[str, float], results: dict[str, Any]) -> None:
    """Print the rates of a part, and keep them."""
    theirs = {mode: rate for mode in DTYPES if (rate := rates.get(f"transformers {mode}"))}
    for name, rate in rates.items():
        same = theirs.get(name.split()[1])
        beside = f"{rate / same:.2f} x same dtype, " if same else ""
        overall = f"{rate / max(theirs.values()):.2f} x transformers' best" if theirs else ""
        print(f"  {name:<18} {rate:9.1f} tokens/s   {beside}{overall}", flush=True)
    results[part] = {name: round(rate, 2) for name, rate in rates.items()}


def wait_for_gpu() -> None:
    """Until all that was asked of it is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def read_bandwidth(device: torch.device) -> float:
    """Bytes a second that the memory gives: the best of several matrix-vector products, torch's and ours (on a GPU, a
    sum too), over more than any cache holds."""
    matrix, vector = torch.ones(16384, 8192, device=device), torch.ones(8192, device=device)
    products: list[Callable[[], Any]] = [lambda: torch.mv(matrix, vector)]
    if device.type == "cuda":
        products.append(lambda: matrix.sum())
    elif library() is not None:
        products.append(lambda: product_few(vector[None], matrix, None))
    best = float("inf")
    for _ in range(5):
        for product in products:
            wait_for_gpu()
            start = time.perf_counter()
            product()
            wait_for_gpu()
            best = min(best, time.perf_counter() - start)
    return matrix.nbytes / best


if __name__ == "__main__":
    main()
