"""The C files beside this one, compiled for the processor at hand when they are first needed."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slm.files.cache import cache_folder
from slm.notices import notice

FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fvisibility=hidden", "-Wno-psabi", "-fPIC")
_TIMEOUT_S = 120
_left_out = False  # by `without_kernels`

WIDTH = 16  # numbers that a kernel takes at a time
POINTER, LONG, INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
_ARGUMENTS = {
    "product_few": "ppppillli",
    "product_tiles": "ppppllli",
    "product_int8": "pppppillli",
    "product_int4": "pppppillli",
    "rounded_rows": "ppilli",
    "widen_int8": "pppilli",
    "widen_int4": "pppilli",
    "decode_step": "p",
    "attend_prompt": "p",
    "activate": "p",
    "largest_places": "ppillli",
    "cross_entropy": "p",
    "train_attention": "pi",
    "has_train_attention": "i",
}


def library() -> ctypes.CDLL | None:
    """The compiled functions; None where they cannot be had, and then torch's own products do the work. They are kept
    in ``$SLM_CACHE_DIR/native`` (``~/.cache/slm/native``), one file for each processor, compiler and version of the
    sources. ``SLM_NATIVE=0`` does without, and so does `without_kernels`. The threads are those of torch's own pool."""
    return None if _left_out else _library()


@contextmanager
def without_kernels() -> Iterator[None]:
    """As on a machine that has none, until the block ends."""
    global _left_out
    before, _left_out = _left_out, True
    try:
        yield
    finally:
        _left_out = before


@functools.cache
def _library() -> ctypes.CDLL | None:
    if os.environ.get("SLM_NATIVE") == "0" or sys.platform != "linux":
        return None
    sources = sorted(Path(__file__).parent.glob("*.c"))
    try:
        compiler = _compiler()
        cache = cache_folder("native")
        file = cache / f"{_fingerprint(sources, compiler)}.so"
        if not file.is_file():
            _compile(compiler, sources, file)
        found = ctypes.CDLL(str(file))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        lost = "decoding and training go without their C kernels, at about half the speed"
        notice(f"{lost}: {error} (SLM_NATIVE=0: no notice)")
        return None
    for name, arguments in _ARGUMENTS.items():
        getattr(found, name).argtypes = [{"p": POINTER, "l": LONG, "i": INT}[kind] for kind in arguments]
    return found


def compiled() -> ctypes.CDLL:
    """`library`, for those who know that there is one."""
    found = library()
    assert found is not None
    return found


def has(kind: str, *numbers: bool) -> bool:
    """Whether this machine has a product by bf16 ``tiles`` (AMX), or ``train_attention`` of fp32 or, with True, bf16
    numbers (AVX-512)."""
    return library() is not None and _has(kind, *numbers)


@functools.cache
def _has(kind: str, *numbers: bool) -> bool:
    return bool(getattr(compiled(), f"has_{kind}")(*numbers))


def multiplies_bf16() -> bool:
    """Whether torch's products on this CPU take bf16 by instructions of its own."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    """``_fields_`` of a structure, all of one kind."""
    return [(name, kind) for name in names.split()]


def place(tensor: Tensor | None) -> int | None:
    """Its address."""
    return None if tensor is None else tensor.data_ptr()


def is_shape_alone(tensor: Tensor) -> bool:
    """Whether no numbers lie behind it (torch's `FakeTensor`): to make the result's tensors is then all of the work."""
    return hasattr(tensor, "fake_mode")


def is_half(tensor: Tensor) -> bool:
    """Whether it holds bf16 numbers."""
    return tensor.dtype == torch.bfloat16


def serves(tensor: Tensor) -> bool:
    """Whether there are kernels, and they know numbers like these: fp32 or bf16 on the CPU."""
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.bfloat16) and library() is not None


def _compiler() -> str:
    wanted = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    if found := next(filter(None, map(shutil.which, wanted)), None):
        return found
    raise FileNotFoundError(f"there is no C compiler ({' or '.join(wanted)}); install gcc, or set CC")


def _fingerprint(sources: list[Path], compiler: str) -> str:
    digest = hashlib.sha256(" ".join([*FLAGS, os.path.realpath(compiler), _processor()]).encode())
    digest.update(str(os.stat(compiler).st_mtime_ns).encode())
    for file in [*sources, *sorted(Path(__file__).parent.glob("*.h"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:24]


def _processor() -> str:
    """What ``-march=native`` depends on; a cache folder may be shared between machines."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
        first = info.read().partition("\n\n")[0]
    keys = ("model name", "flags", "Features", "CPU part")
    return platform.machine() + "".join(line for line in first.splitlines() if line.startswith(keys))


def _compile(compiler: str, sources: list[Path], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        _run(compiler, *FLAGS, "-c", *map(str, sources), folder=folder)
        # linked without OpenMP, whose functions are then found in the library that torch has loaded
        _run(compiler, "-shared", *(f"{source.stem}.o" for source in sources), "-o", file.name, "-lm", folder=folder)
        with open(Path(folder) / file.name, "rb") as made:
            os.fsync(made.fileno())
        os.replace(made.name, file)


def _run(*command: str, folder: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, cwd=folder)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        raise RuntimeError(f"the C compiler failed ({(lines or [f'status {done.returncode}'])[0]})")
