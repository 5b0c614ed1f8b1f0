"""slm-serve beside `slm-generate prompts=` and, where it is installed, `transformers serve`: same model, same requests.

    python benchmarks/serve.py MODEL [--clients 1,16,64] [--new 64] [--rounds 3] [--transformers PYTHON]

MODEL is a run folder, a bundle or a Hugging Face folder (which `transformers` needs); PYTHON an interpreter that has
``transformers[serving]``. Each round asks every server in turn: as many clients as are named, each with one prompt of
mixed length after the other, tokens drawn greedily and all of the same number. Rates are medians of rounds; memory is
what the server's process held at most. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import torch

SENTENCE = "the capital of a country is where its parliament meets and most of its ministers work every day"


class Server:
    """A process that answers at `url`, and how it wants to be asked."""

    def __init__(self, command: list[str], url: str, model: str, **asked: Any) -> None:
        self.url, self.model, self.asked = url, model, asked
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )

    def wait(self) -> None:
        """Until it answers; it may load its model with the first request."""
        for _ in range(1200):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            if self._process.poll() is not None:
                self._log.seek(0)
                raise SystemExit(f"it ended: {self._log.read().decode()[-2000:]}")
            time.sleep(0.1)
        raise SystemExit("it does not answer")

    def peak_memory(self) -> int:
        """Bytes, at most so far."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10

    def end(self) -> None:
        """By a signal."""
        self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._process.kill()


async def asked(server: Server, prompts: list[str], clients: int) -> tuple[float, list[float], int]:
    """(seconds, seconds to each first token, tokens) of some clients that have these prompts among them."""
    waiting, firsts, tokens = list(reversed(prompts)), list[float](), 0
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=None, limits=limits) as client:

        async def one() -> None:
            nonlocal tokens
            while waiting:
                messages = [{"role": "user", "content": waiting.pop()}]
                body = {"model": server.model, "messages": messages, "stream": True, **server.asked}
                start, came = time.perf_counter(), 0
                async with client.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
                    async for line in answer.aiter_lines():
                        told = json.loads(line[6:]) if line.startswith("data: {") else {}
                        if any(choice["delta"].get("content") for choice in told.get("choices", ())):
                            came += 1
                            if came == 1:
                                firsts.append(time.perf_counter() - start)
                tokens += came
                assert answer.status_code == 200, answer.status_code

        start = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(clients)))
        return time.perf_counter() - start, firsts, tokens


def prompts_of(number: int) -> list[str]:
    """Of 5 to 60 words."""
    draw = random.Random(number)
    return [" ".join(draw.choices(SENTENCE.split(), k=draw.randrange(5, 61))) + "?" for _ in range(number)]


def by_file(model: str, prompts: list[str], new: int, rows: int) -> Callable[[], float]:
    """Seconds of `slm-generate prompts=`, without its start, which is that of a file of one prompt."""
    program = str(Path(sys.executable).with_name("slm-generate"))

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            seconds = []
            for part in (prompts[:1], prompts):
                file = Path(folder, f"{len(part)}.jsonl")
                lines = [json.dumps({"messages": [{"role": "user", "content": text}]}) for text in part]
                file.write_text("\n".join(lines))
                settings = ["greedy=true", "stop_at_eos=false", f"max_new_tokens={new}", f"batch_size={rows}"]
                command = [program, f"model_dir={model}", f"prompts={file}", *(f"generation.{one}" for one in settings)]
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                seconds.append(time.perf_counter() - start)
            return seconds[1] - seconds[0]

    return run


def free_port() -> int:
    """One that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextlib.contextmanager
def servers(options: argparse.Namespace, rows: int) -> Iterator[dict[str, Server]]:
    """Ours, and theirs if there is one."""
    port = free_port()
    ours = [str(Path(sys.executable).with_name("slm-serve")), f"model_dir={options.model}", f"port={port}"]
    settings = ["generation.greedy=true", f"generation.batch_size={rows}"]
    name = Path(options.model).resolve().name
    asked = {"max_tokens": options.new, "ignore_eos": True}
    found = {"slm-serve": Server([*ours, *settings], f"http://127.0.0.1:{port}", name, **asked)}
    try:
        if options.transformers:
            port = free_port()
            theirs = [options.transformers, "-m", "transformers.cli.transformers", "serve", "--port", str(port)]
            more = ["--device", "cpu", "--dtype", "float32", *(["--continuous-batching"] if options.batching else [])]
            generation = json.dumps({"max_new_tokens": options.new, "min_new_tokens": options.new, "do_sample": False})
            path = str(Path(options.model).resolve())
            found["transformers serve"] = Server(
                [*theirs, *more], f"http://127.0.0.1:{port}", path, generation_config=generation, max_tokens=options.new
            )
        for server in found.values():
            server.wait()
        yield found
    finally:
        for server in found.values():
            server.end()


def measure(options: argparse.Namespace, clients: int, results: dict[str, Any]) -> None:
    """Rates at a number of clients, interleaved."""
    prompts = prompts_of(max(4, 2 * clients))
    rows = min(16, clients)
    rates: dict[str, list[float]] = {}
    firsts: dict[str, list[float]] = {}
    with servers(options, rows) as found:
        for server in found.values():  # models are loaded, kernels compiled
            asyncio.run(asked(server, prompts[:1], 1))
        files = by_file(options.model, prompts, options.new, rows)
        for _ in range(options.rounds):
            rates.setdefault("slm-generate prompts=", []).append((len(prompts) - 1) * options.new / files())
            for name, server in found.items():
                seconds, first, tokens = asyncio.run(asked(server, prompts, clients))
                rates.setdefault(name, []).append(len(prompts) * options.new / seconds)
                firsts.setdefault(name, []).append(statistics.median(first))
                if tokens < 0.8 * len(prompts) * options.new:
                    print(f"  {name}: {tokens} events with text of {len(prompts) * options.new} tokens")
        told = {name: {"tokens_per_s": round(statistics.median(rate), 2)} for name, rate in rates.items()}
        for name, server in found.items():
            told[name] |= {
                "first_token_s": round(statistics.median(firsts[name]), 3),
                "peak_mib": server.peak_memory() >> 20,
            }
    print(f"{clients} clients, {len(prompts)} prompts, {options.new} new tokens each")
    for name, one in told.items():
        print(f"  {name:<24} {one}", flush=True)
    results[str(clients)] = told


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clients", default="1,16,64", help="numbers, with commas between")
    parser.add_argument("--new", type=int, default=64, help="tokens of each text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--transformers", help="an interpreter that has transformers[serving]")
    parser.add_argument("--batching", action="store_true", help="theirs with --continuous-batching")
    options = parser.parse_args()
    print(f"{options.model}, torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.platform()}")
    results: dict[str, Any] = {"model": options.model, "new": options.new, "rounds": options.rounds}
    for clients in map(int, options.clients.split(",")):
        measure(options, clients, results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
