"""How long a model takes from its file to its first logits, and how much memory on top of the weights.

    python benchmarks/load.py [--model gpt2_base] [--repeats 3]

Random weights of the named preset's shape are written as a Hugging Face folder (in several dtypes) and as a bundle;
each is then loaded in fresh processes. Peak memory is the growth of the process's resident set since its imports,
beside the bytes of the weights in the dtype that was asked for. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from slm.cli.composition import CONF, VERSION_BASE
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.tokenizers.byte import ByteTokenizer
from slm.weights.bundle import write_bundle
from slm.weights.fine_tuning import shape_values
from slm.weights.hugging_face import write_hugging_face

CHILD = """
import sys, time
import torch, slm
import slm.weights.open_model, slm.models.meta_arch.gpt, slm.generation.language_model
import slm.tokenizers.byte, slm.tokenizers.hf_gpt2
def memory(kind):
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(kind))
torch.mm(torch.ones(64, 64), torch.ones(64, 64))  # threads and libraries that any computation brings
open("/proc/self/clear_refs", "w").write("5")  # forget the peak of the imports
before, start = memory("VmRSS"), time.perf_counter()
lm = slm.load(sys.argv[1], device="cpu", dtype=getattr(torch, sys.argv[2]))
loaded = time.perf_counter()
with torch.inference_mode():
    lm.model(torch.arange(16)[None])
print(time.perf_counter() - start, loaded - start, memory("VmHWM") - before)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gpt2_base", help="a choice of conf/model")
    parser.add_argument("--vocab-size", type=int, default=50257)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with initialize_config_module(CONF, **VERSION_BASE):
        overrides = [f"model={options.model}", f"model.params.vocab_size={options.vocab_size}"]
        values = OmegaConf.to_container(compose("train", overrides=overrides).model, resolve=True)
    config = ModelConfig.from_dict(shape_values(values))
    model = build_model(config)
    n_parameters = sum(p.numel() for p in model.parameters())
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(Path(folder, "bundle"), config, model.state_dict(), ByteTokenizer(), {})
        for name, dtype in (("hf_fp32", torch.float32), ("hf_bf16", torch.bfloat16)):
            weights = {key: tensor.to(dtype) for key, tensor in model.state_dict().items()}
            write_hugging_face(Path(folder, name), config, weights, ByteTokenizer(), {})
        cases = [(n, d) for n in ("bundle", "hf_fp32", "hf_bf16") for d in ("float32", "bfloat16")]
        for source, dtype in cases:
            size = n_parameters * getattr(torch, dtype).itemsize
            runs = [measured(Path(folder, source), dtype) for _ in range(options.repeats)]
            seconds, loading, peak = (statistics.median(column) for column in zip(*runs, strict=True))
            results[f"{source} -> {dtype}"] = {
                "seconds_to_logits": round(seconds, 3),
                "seconds_to_load": round(loading, 3),
                "peak_over_weights": round(peak / size, 3),
            }
            print(f"{source:>8} -> {dtype:<9} {seconds:6.2f} s  peak {peak / size:.3f} x the weights")
    setting = {
        "model": options.model,
        "parameters": n_parameters,
        "torch": torch.__version__,
        "cpu": platform.processor(),
    }
    print(json.dumps({**setting, "threads": torch.get_num_threads(), "results": results}))


def measured(source: Path, dtype: str) -> list[float]:
    """Seconds to logits, seconds to load, bytes at the peak; in a process of its own."""
    command = [sys.executable, "-c", CHILD, str(source), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    main()
