"""A run that begins from a checkpoint of another: what goes on in it, what begins anew, and where that is noted."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from slm.data.batches.datamodule import WindowDataModule
from slm.notices import notice
from slm.training.run.folder import TIME
from slm.training.run.resume_checks import Resumed

BRANCHES_FILE = "branches.jsonl"

DATA, OPTIMIZER = "data", "optimizer"


def begun_anew(
    begun_from: Resumed, datamodule: WindowDataModule, model: nn.Module, optimizer: Optimizer, same_class: bool
) -> list[str]:
    """What of the checkpoint does not go on in the new run, each told; `UserError` if its weights do not fit. With
    `same_class` the optimizer is of the kind that the other run had."""
    begun_from.check_weights(model)
    anew = []
    if not begun_from.is_of_data(datamodule):
        anew.append(DATA)
        notice("from_step: the data, its windows or its order are others: they are read from their beginning")
    if not (same_class and begun_from.is_of_optimizer(optimizer)):
        anew.append(OPTIMIZER)
        notice("from_step: the optimizer, or what it trains, is another: it begins without moments of the steps before")
    return anew


def carry_over(
    anew: list[str], datamodule: WindowDataModule, optimizer: Optimizer, n_figures: int
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What makes of the checkpoint's content the state that the new run begins with; its log rows have `n_figures`."""

    def carried(content: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in content.items() if key != "bad_steps"}  # they stand in the other folder
        if DATA in anew:
            kept = {key: value for key, value in kept.items() if not key.endswith("DataModule")}
            kept[type(datamodule).__qualname__] = datamodule.state_dict()
            kept["val_metrics"] = {}
            kept["train_sums"] = {**kept["train_sums"], "figures": [*[0.0] * n_figures, 0]}
        if OPTIMIZER in anew:
            kept |= _new_optimizer(optimizer, content["global_step"])
        return kept

    return carried


def _new_optimizer(optimizer: Optimizer, step: int) -> dict[str, Any]:
    """The state of an optimizer that has made no step, under a schedule that has made `step`."""
    state = optimizer.state_dict()
    rates = [group["lr"] for group in state["param_groups"]]
    schedule = {"last_epoch": step, "_step_count": step + 1, "base_lrs": rates, "_last_lr": rates}
    return {"optimizer_states": [state], "lr_schedulers": [{**schedule, "lr_lambdas": [None] * len(rates)}]}


def parent_of(begun_from: Resumed, anew: list[str]) -> dict[str, Any]:
    """For ``run.json``: where the run comes from."""
    is_by_itself = begun_from.run == begun_from.file
    run = None if is_by_itself else str(begun_from.run.absolute())
    return {"run": run, "checkpoint": begun_from.file.name, "step": begun_from.step, "anew": anew}


def note_branch(begun_from: Resumed, run: Path, typed: list[str]) -> None:
    """Add a line to the other run's ``branches.jsonl``, once; a folder that cannot be written to is said."""
    if begun_from.run == begun_from.file:
        return
    file = begun_from.run / BRANCHES_FILE
    branch = {"run": str(run.absolute()), "step": begun_from.step}
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        if not any(_is_of(line, branch) for line in lines):
            with file.open("a", encoding="utf-8") as out:
                told = {**branch, "started": time.strftime(TIME), "overrides": typed}
                out.write(json.dumps(told, ensure_ascii=False) + "\n")
    except OSError as error:
        notice(f"from_step: '{file}' cannot be written ({error.strerror}): the branch is noted in '{run}' alone")


def _is_of(line: str, branch: Mapping[str, Any]) -> bool:
    try:
        noted = json.loads(line)
    except ValueError:  # torn by a kill
        return False
    return isinstance(noted, dict) and branch.items() <= noted.items()
