"""slm-evaluate: what a model is worth on held-out data, as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.cli.app import run_app
from slm.cli.command import Command
from slm.cli.given_model import model_source, reject_unknown
from slm.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from slm.evaluation.config import EvaluationConfig


def evaluate(cfg: DictConfig) -> float:
    """The Hydra task; returns the loss."""
    from omegaconf import OmegaConf

    settings = _checked(cfg)
    source = model_source(cfg)
    path = Path(cfg.run or cfg.model_dir).expanduser()
    _ = settings.answers_file  # refuses one that cannot be written, before the model is opened

    from slm.training.lean_lightning import import_lightning

    import_lightning()
    from slm.evaluation.evaluator import evaluate as score
    from slm.weights.open_model import open_source

    data, own_task = _data(cfg, path)
    changes: Any = OmegaConf.to_container(cfg.task)
    figures = score(open_source(source), settings, data, own_task, changes, path)
    said = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in figures.items()}
    print(json.dumps({"model": str(path), **said}, allow_nan=False))  # JSON knows no NaN
    return figures["loss"]


def _data(cfg: DictConfig, path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What to score on, and the settings of the run's own task."""
    from omegaconf import OmegaConf, open_dict

    from slm.training.run.folder import CONFIG_FILE, read_config

    of_run: Any = None
    if (path / CONFIG_FILE).is_file():
        of_run = OmegaConf.create(read_config(path))
    with open_dict(cfg):
        if "kind" not in (cfg.get("data") or {}):  # not chosen anew: the run's, with what was changed of it
            if of_run is None:
                said = "the model does not say what to evaluate on"
                raise UserError(f"data is missing: {said}; give data=text data.path=…")
            cfg.data = OmegaConf.merge(of_run.get("data") or {}, cfg.get("data") or {})
        cfg.model = {"params": {"max_seq_len": None}}  # what data.seq_len is where nobody sets it
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    own: Any = OmegaConf.to_container(of_run.task) if of_run is not None and "task" in of_run else None
    return values["data"], own


def _checked(cfg: DictConfig) -> EvaluationConfig:
    from slm.evaluation.config import EvaluationConfig
    from slm.schema import checked, together
    from slm.training.config import check_precision

    names = [field.name for field in fields(EvaluationConfig)]
    return together(
        lambda: checked(EvaluationConfig, {name: cfg[name] for name in names}),
        lambda: reject_unknown(cfg, {"run", "checkpoint", "model_dir", "data", "task", "plugins", *names}),
        lambda: check_precision(cfg["precision"], "precision"),
    )[0]


def _with_the_runs_own(arguments: list[str]) -> list[str]:
    """Keys below what is not chosen here, which Hydra knows none of: they change those of the run."""
    changed = ("task.",) if any(argument.startswith("data=") for argument in arguments) else ("task.", "data.")
    return [f"+{argument}" if argument.startswith(changed) else argument for argument in arguments]


_PATHS = ("run", "model_dir", "data.path", "data.val_path", "out", "reference")
main = partial(run_app, Command("evaluate", evaluate, _checked, _with_the_runs_own, paths=_PATHS))

if __name__ == "__main__":
    main()
