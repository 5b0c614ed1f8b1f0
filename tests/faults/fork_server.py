"""Runs ``slm-train`` many times, in processes forked off one that has imported everything: seconds a run are saved.

A request is a line of JSON on stdin, the answer one on stdout. {"arguments", "folder", "environment", "log", "report",
"kill"} starts a run and gives {"pid"}; {"wait": pid} gives {"status"}, negative for a signal.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import Any

import witness

BEFORE: set[str] = set()
IMPORTED = (
    "torch._dynamo",
    "slm.cli.train",
    "slm.training.runner",
    "slm.training.tasks.pretrain",
    "slm.training.tasks.sft",
    "slm.training.watch.progress",
    "slm.training.watch.sample_text",
    "slm.training.answers",
    "slm.data.batches.datamodule",
    "slm.data.batches.mixture",
    "slm.data.store.find",
    "hydra.main",
)


def run(request: dict[str, Any]) -> int:
    """The command, in this process; its exit status."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    report = os.open(request["report"], os.O_WRONLY | os.O_CREAT)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    kill = request["kill"]
    witness.watch.begin(witness.Kill(**kill) if kill else None, request["folder"], report)
    sys.argv = ["slm-train", *request["arguments"]]
    try:
        from slm.cli.train import main

        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    if os.environ.get("LATE"):
        for name in sorted(set(sys.modules) - BEFORE):
            print("LATE", name)
    print(f"changes of files: {witness.watch.file_changes}", flush=True)
    sys.stderr.flush()
    return status


def main() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    BEFORE.update(sys.modules)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            status = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
            print(json.dumps({"status": status}), flush=True)
            continue
        pid = os.fork()
        if not pid:
            os._exit(run(request))
        print(json.dumps({"pid": pid}), flush=True)


if __name__ == "__main__":
    main()
