"""Runs commands as they are typed, each in a fork of one process that has imported torch and Lightning already.

A line ``{"folder": …, "arguments": ["slm-generate", …]}`` is answered by ``{"status": …, "err": …, "megabytes": …,
"seconds": …}``: the peak of the process's memory with all that is imported, and its time on the processor. Both include
the processes that it started.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile


def main() -> None:
    # Lightning alone, with what torchmetrics looks for, takes two to four of the five seconds that are allowed
    for module in (
        "torch",
        "pytorch_lightning",
        "hydra",
        "slm.weights.open_model",
        "slm.generation.language_model",
        "slm.training.run_config",
    ):
        importlib.import_module(module)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(_run(asked["folder"], asked["arguments"])), flush=True)


def _run(folder: str, arguments: list[str]) -> dict[str, object]:
    with tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            _be(folder, arguments, err.fileno())
        _, status, used = os.wait4(pid, 0)
        err.seek(0)
        text = err.read().decode(errors="replace")
    return {
        "status": os.waitstatus_to_exitcode(status),
        "err": text,
        "megabytes": used.ru_maxrss / 1024,
        "seconds": used.ru_utime + used.ru_stime,
    }


def _be(folder: str, arguments: list[str], err: int) -> None:
    os.chdir(folder)
    os.dup2(err, 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(1, 0)
    sys.argv = arguments
    status: object = 0
    try:
        importlib.import_module(f"slm.cli.{arguments[0].removeprefix('slm-')}").main()
    except SystemExit as end:
        status = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


if __name__ == "__main__":
    main()
