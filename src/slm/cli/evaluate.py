"""slm-evaluate: what a model is worth on held-out data, as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import PlainValidator

from slm.cli.app import run_app
from slm.cli.command import Command
from slm.errors import UserError
from slm.notices import notice
from slm.schema import Count, Text, checked, together

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import nn

    from slm.data.config import DataConfig
    from slm.weights.pretrained import Pretrained

_SETTINGS = ("split", "answers", "out", "reference", "eos_token", "batch_size", "precision", "quantize")


def _how_many(value: object) -> int | Literal["all"]:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"should be a number, or all; got {value!r}")


@dataclass(frozen=True)
class _Settings:
    split: Literal["train", "val", "all"]
    answers: Annotated[int | Literal["all"], PlainValidator(_how_many)]
    out: Text | None
    reference: Text | None
    eos_token: Text | None
    batch_size: Count
    precision: str | int
    quantize: Literal["int8", "int4"] | None


def evaluate(cfg: DictConfig) -> float:
    """The Hydra task; returns the loss."""
    import torch
    from omegaconf import OmegaConf

    from slm.cli.given_model import model_source

    settings = _checked(cfg)
    source = model_source(cfg)
    path = Path(cfg.run or cfg.model_dir).expanduser()
    answers_file = _answers_file(settings)

    from slm.evaluation.evaluator import evaluate as score
    from slm.models.inference.prepared import prepare_for_inference
    from slm.training.tasks.task import Evaluation, task_for
    from slm.weights.open_model import open_source

    opened = open_source(source)
    if settings.eos_token is not None:
        opened = replace(opened, tokenizer=opened.tokenizer.with_end_of_text(settings.eos_token))
    data, own_task = _data(cfg, path, opened)
    _check_use(settings, data)
    changes: Any = OmegaConf.to_container(cfg.task)
    task = task_for(data.corpus, own_task, changes)
    model = opened.model(dtype=torch.float32)
    reference = _reference(settings.reference, opened, data) if settings.reference else None
    about = (opened.config, opened.tokenizer, settings.answers, answers_file, path, reference)
    scored = task.evaluation(Evaluation(data, settings.split, settings.batch_size, *about))
    if scored.said:
        notice(scored.said)
    figures = score(model, scored, settings.precision)
    if settings.quantize is not None:
        plain = figures["loss"]
        prepare_for_inference(model, settings.quantize)
        figures = {**score(model, scored, settings.precision), "quantize": settings.quantize, "loss_unquantized": plain}
        figures["loss_change"] = figures["loss"] - plain
    said = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in figures.items()}
    print(json.dumps({"model": str(path), **said}, allow_nan=False))  # JSON knows no NaN
    return figures["loss"]


def _data(cfg: DictConfig, path: Path, opened: Pretrained) -> tuple[DataConfig, dict[str, Any] | None]:
    """What to score on, and the settings of the run's own task; None without a run."""
    from omegaconf import OmegaConf, open_dict

    from slm.data.config import DataConfig
    from slm.files.reading import read_yaml_object
    from slm.training.run.folder import CONFIG_FILE, read_record, settings_from_start
    from slm.training.run_config import FINE_TUNING_SEQ_LEN

    of_run: Any = None
    if (path / CONFIG_FILE).is_file():
        of_run = OmegaConf.create(settings_from_start(read_yaml_object(path / CONFIG_FILE), read_record(path)))
    with open_dict(cfg):
        if "kind" not in (cfg.get("data") or {}):  # not chosen anew: the run's, with what was changed of it
            if of_run is None:
                raise UserError(
                    "data is missing: the model does not say what to evaluate on; give data=text data.path=…"
                )
            cfg.data = OmegaConf.merge(of_run.get("data") or {}, cfg.get("data") or {})
        cfg.model = {"params": {"max_seq_len": None}}  # what data.seq_len is where nobody sets it
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    longest = opened.config.params.max_seq_len
    if values["data"].get("seq_len") is None:
        values["data"]["seq_len"] = min(longest, FINE_TUNING_SEQ_LEN)
        if longest > FINE_TUNING_SEQ_LEN:
            notice(f"windows of {FINE_TUNING_SEQ_LEN:,} tokens; data.seq_len sets more, up to the model's {longest:,}")
    data = DataConfig.from_dict(values["data"])
    if data.seq_len > longest:
        raise UserError(f"data.seq_len ({data.seq_len}) must be at most the model's {longest}")
    own: Any = OmegaConf.to_container(of_run.task) if of_run is not None and "task" in of_run else None
    return data, own


def _answers_file(settings: _Settings) -> Path | None:
    if settings.out is None:
        return None
    file = Path(settings.out).expanduser()
    if settings.answers == 0:
        raise UserError("out is where answers to questions go; say how many: answers=all, or a number")
    if file.suffix not in (".json", ".jsonl"):
        raise UserError(f"out: '{file}' should end in .jsonl or .json")
    if file.exists():
        raise UserError(f"out: '{file}' is there already and is left as it is; give another name")
    if not file.parent.is_dir():
        raise UserError(f"out: there is no folder '{file.parent}'; make it, or name a file elsewhere")
    return file


def _check_use(settings: _Settings, data: DataConfig) -> None:
    """Raise `UserError` for a setting that nothing would read."""
    from slm.data.config import CONVERSATIONS, PREFERENCES

    kind = data.corpus.kind
    if settings.answers != 0 and kind != CONVERSATIONS:
        raise UserError(f"answers: only conversations (data=instructions) hold questions; data.kind is {kind}")
    if settings.eos_token is not None and kind in (CONVERSATIONS, PREFERENCES):
        raise UserError(f"eos_token: it ends running text alone; data.kind is {kind}: leave it out")
    if settings.reference is not None and kind != PREFERENCES:
        raise UserError(f"reference: only pairs (data=pairs) are compared with one; data.kind is {kind}")


def _reference(name: str, opened: Pretrained, data: DataConfig) -> nn.Module:
    import torch

    from slm.weights.adapt import check_same_tokens
    from slm.weights.open_model import find_source, open_source

    found = open_source(find_source(name))
    try:
        check_same_tokens(opened.tokenizer, found.tokenizer)
    except UserError:
        raise UserError(
            f"reference: '{name}' has another vocabulary than the model; name the weights that training began with"
        ) from None
    for what, has, needed in (
        ("tokens", found.config.vocab_size, opened.tokenizer.vocab_size),
        ("positions", found.config.params.max_seq_len, data.seq_len),
    ):
        if has < needed:
            raise UserError(f"reference: '{name}' has {has:,} {what}, and {needed:,} are needed to read the pairs")
    return found.model(dtype=torch.float32)


def _checked(cfg: DictConfig) -> _Settings:
    """How to evaluate; raises `UserError` with all that is wrong, but for the data, which may be the run's."""
    from slm.cli.given_model import reject_unknown
    from slm.training.precision_names import check_precision

    settings, *_ = together(
        lambda: checked(_Settings, {name: cfg[name] for name in _SETTINGS}),
        lambda: reject_unknown(cfg, {"run", "checkpoint", "model_dir", "data", "task", "plugins", *_SETTINGS}),
        lambda: check_precision(cfg["precision"], "precision"),
    )
    return cast("_Settings", settings)


def main() -> None:
    """Entry point."""
    paths = ("run", "model_dir", "data.path", "data.val_path", "out", "reference")
    run_app(Command("evaluate", evaluate, _checked, _with_the_runs_own, paths=paths))


def _with_the_runs_own(arguments: list[str]) -> list[str]:
    """Keys below what is not chosen here, which Hydra knows none of: they change those of the run."""
    changed = ("task.",) if any(argument.startswith("data=") for argument in arguments) else ("task.", "data.")
    return [f"+{argument}" if argument.startswith(changed) else argument for argument in arguments]


if __name__ == "__main__":
    main()
