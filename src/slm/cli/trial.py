"""A trial of a sweep: ``slm-train`` in a process that was forked off one with everything imported."""

import importlib
import json
import os
import socket
import sys
import traceback
from typing import Any

from slm.study.sweep.ending import FAILED

_IMPORTED = (
    "slm.training.runner",
    "slm.training.watch.trial",
    "slm.training.watch.progress",
    "slm.training.watch.sample_text",
    "slm.training.tasks.pretrain",
    "slm.models.meta_arch.gpt",
    "slm.tokenizers.bpe",
    "slm.data.documents.text",
    "slm.weights.families.gpt_neox",
    "slm.weights.families.llama",
    "slm.data.batches.datamodule",
    "slm.data.store.find",
    "slm.cli.train",
    "slm.cli.composition",
    "hydra.main",
    "hydra.core.plugins",
)
_NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "out of memory")


def preload() -> None:
    """Import what a run does; nothing may start a thread or look for a GPU, since this process is forked."""
    from slm.training.lean_lightning import import_lightning

    import_lightning()
    for module in _IMPORTED:
        importlib.import_module(module)
    from hydra.core.plugins import Plugins

    Plugins.instance()


def run(arguments: list[str], channel: int) -> int:
    """``slm-train`` with these words, its own name first; the exit status. A bug is told to the sweeper."""
    from slm.cli.train import main
    from slm.training.watch.trial import CHANNEL

    os.environ[CHANNEL] = str(channel)
    sys.argv = arguments
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        traceback.print_exc()
        with socket.socket(fileno=os.dup(channel)) as sweeper:
            sweeper.sendall(json.dumps(failure(error)).encode() + b"\n")
        return 1
    return 0


def failure(error: BaseException) -> dict[str, Any]:
    """What a trial failed of: the cause, where the run only says at which step that was."""
    from slm.training.runner import RunBrokeOffError

    cause = error.__cause__ if isinstance(error, RunBrokeOffError) and error.__cause__ else error
    said = " ".join(str(cause).split())
    if isinstance(cause, MemoryError) or any(words in said for words in _NO_MEMORY):
        return {FAILED: f"out of memory: {said or type(cause).__name__}", "mistake": True}
    return {FAILED: f"{type(cause).__name__}: {said}", "mistake": False}
