"""slm-prepare on a gigabyte of text: its rate beside the tokenizer's own, its memory, and what kills do to its output.

    python benchmarks/prepare.py [--mb 1000] [--processes 2] [--kill 5] [--tokenizer tiktoken]

The text is made of this machine's Python sources (the standard library and site-packages), shuffled and repeated, in
files of 1 to 200 MB. The tokenizer's own rate is that of one thread: tiktoken's `encode_ordinary`, or `encode_batch`
with one thread for a vocabulary of the library `tokenizers`, on a sample of the same text. Memory is the sum of the
proportional set sizes (PSS) of all processes of the command, sampled. With ``--kill N`` the command is killed with all
its processes at N random moments of one run, started again each time, and its output compared. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from slm.tokenizers.base import Tokenizer
from slm.tokenizers.load import load_tokenizer

SAMPLE_BYTES = 16_000_000
FILE_MB = (1, 5, 20, 200, 50)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kill", type=int, default=0)
    parser.add_argument("--tokenizer", default="tiktoken", help="a choice of conf/tokenizer")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({**setting(options), **measured(options, Path(folder))}))


def setting(options: argparse.Namespace) -> dict[str, object]:
    """What the figures depend on."""
    versions = {name: __import__(name).__version__ for name in ("tiktoken", "tokenizers", "numpy")}
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
    }
    return {**machine, **versions, **vars(options)}


def measured(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """All figures."""
    text = folder / "text"
    size = make_text(text, options.mb * 10**6, options.seed)
    print(f"text       {size / 1e6:,.0f} MB in {len(list(text.iterdir()))} files")
    command = [
        sys.executable, "-m", "slm.cli.prepare", "data=text", f"data.path={text}", "data.val_fraction=0.01",
        f"tokenizer={options.tokenizer}", f"num_processes={options.processes}",
    ]  # fmt: skip
    whole = folder / "whole"
    before = single_thread_rate(text, own_tokenizer(options, folder))
    seconds, peak = run([*command, f"out={whole}"])
    after = single_thread_rate(text, load_tokenizer(whole))
    single = (before + after) / 2
    rate = size / seconds
    print(f"one thread {single / 1e6:.2f} MB/s ({before / 1e6:.2f} before, {after / 1e6:.2f} after)")
    print(
        f"prepare    {rate / 1e6:.2f} MB/s on {options.processes} processes in {seconds:.1f} s, "
        f"{rate / single / options.processes:.1%} of {options.processes} x one thread; peak {peak / 2**20:,.0f} MiB"
    )
    found: dict[str, object] = {
        "bytes": size,
        "single_thread_mb_s": round(single / 1e6, 2),
        "prepare_mb_s": round(rate / 1e6, 2),
        "of_processes_x_single": round(rate / single / options.processes, 3),
        "peak_mib": round(peak / 2**20),
    }
    if options.kill:
        again = folder / "killed"
        killed = run_killed([*command, f"out={again}"], options.kill, seconds, options.seed)
        found |= {"kills": len(killed), "identical": digests(again) == digests(whole)}
        print(f"killed     after {', '.join(f'{s:.1f}' for s in killed)} s; identical: {found['identical']}")
    return found


def make_text(folder: Path, n_bytes: int, seed: int) -> int:
    """Files of shuffled sources; returns the bytes written."""
    draw = random.Random(seed)
    folder.mkdir()
    sources = shuffled_sources(draw)
    written = 0
    for number in range(10**6):
        wanted = min(FILE_MB[number % len(FILE_MB)] * 10**6, n_bytes - written)
        with (folder / f"{number:04d}.txt").open("wb") as out:
            while out.tell() < wanted:
                out.write(next(sources))
            written += out.tell()
        if written >= n_bytes:
            os.sync()  # the disk is not still writing it while the command runs
            return written
    raise AssertionError


def shuffled_sources(draw: random.Random) -> Iterator[bytes]:
    """Python files of this machine, all of them in one order and then in another, without end."""
    paths = {sysconfig.get_paths()[name] for name in ("stdlib", "purelib")}
    files = sorted({file for path in paths for file in Path(path).rglob("*.py")})
    while True:
        draw.shuffle(files)
        for file in files:
            raw = file.read_bytes()
            if is_text(raw):
                yield raw


def is_text(raw: bytes) -> bool:
    """UTF-8 without NUL."""
    try:
        return "\0" not in raw.decode()
    except UnicodeDecodeError:
        return False


def own_tokenizer(options: argparse.Namespace, folder: Path) -> Tokenizer:
    """Fitted or loaded as the command does, on a little text."""
    little = folder / "little"
    little.mkdir()
    make_text(little / "text", 4_000_000, options.seed)
    command = [sys.executable, "-m", "slm.cli.prepare", "data=text", f"data.path={little / 'text'}"]
    run([*command, f"tokenizer={options.tokenizer}", f"out={little / 'store'}"])
    return load_tokenizer(little / "store")


def single_thread_rate(text: Path, tokenizer: Tokenizer) -> float:
    """Bytes a second of one thread on pieces from all over the text."""
    encode = best_on_one_thread(tokenizer)
    pieces = []
    files = sorted(text.iterdir())
    for file in files:
        with file.open("rb") as content:
            content.seek(file.stat().st_size // 2)
            pieces.append(content.read(max(1, SAMPLE_BYTES // len(files))).decode(errors="ignore"))
    size = sum(len(piece.encode()) for piece in pieces)
    encode(pieces[0][:100_000])
    began = time.perf_counter()
    for piece in pieces:
        encode(piece)
    return size / (time.perf_counter() - began)


def best_on_one_thread(tokenizer: Tokenizer) -> Callable[[str], object]:
    """tiktoken's own way where it is tiktoken; else the tokenizer's, its threads switched off."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    encoding = getattr(tokenizer, "_encoding", None)
    return encoding.encode_ordinary if encoding is not None else tokenizer.encode


def run(command: list[str]) -> tuple[float, int]:
    """Seconds, and bytes of memory at the peak."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment())
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory_of_tree(process.pid))
        with contextlib.suppress(subprocess.TimeoutExpired):  # not too often: it stops the processes for a moment
            process.wait(0.5)
    assert process.returncode == 0, command
    return time.perf_counter() - began, peak


def memory_of_tree(pid: int) -> int:
    """Proportional set sizes of a process and all that it started."""
    total = 0
    try:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:
        return 0  # one ended meanwhile: the next sample is not far
    return total


def run_killed(command: list[str], kills: int, seconds: float, seed: int) -> list[float]:
    """Kill the whole tree at random moments that together make up about one run, then let it end."""
    draw = random.Random(seed)
    waits = [draw.uniform(0.3, 1.7) * seconds / (kills + 1) for _ in range(kills)]
    for wait in waits:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True, env=environment())
        time.sleep(wait)
        assert process.poll() is None, "it ended before it was killed; give more text or fewer kills"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    run(command)
    return waits


def environment() -> dict[str, str]:
    """Ours, without what `best_on_one_thread` sets."""
    return {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}


def digests(store: Path) -> dict[str, str]:
    """Of every file."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(store.iterdir())}


if __name__ == "__main__":
    main()
