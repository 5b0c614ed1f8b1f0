"""A finished model's figures over a part of the data, by the task that reads it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from slm.data.config import DataConfig
from slm.errors import UserError
from slm.evaluation.benchmarks.in_context import Windows, windows_in
from slm.evaluation.config import EvaluationConfig
from slm.models.contract import CausalLM
from slm.models.inference.prepared import prepare_for_inference
from slm.models.kernels.waiting import heed_others
from slm.notices import notice
from slm.training.lit_module import LanguageModelModule
from slm.training.plan import resolve_precision
from slm.training.process import quiet_lightning, quiet_trainer
from slm.training.run.folder import template_time
from slm.training.run_config import FINE_TUNING_SEQ_LEN
from slm.training.tasks.task import Task, TaskData, TaskInputs, task_for
from slm.weights.open_model import find_source, open_source
from slm.weights.pretrained import Pretrained, check_same_tokens


def evaluate(
    opened: Pretrained,
    settings: EvaluationConfig,
    data: Mapping[str, Any],  # where its ``seq_len`` is None, windows are the model's longest, at most 1,024
    own_task: Mapping[str, Any] | None,  # settings of the task that trained the model; None where nobody knows
    task_changes: Mapping[str, Any],  # of these, or of those of the task that reads the data
    run: Path | None,  # the folder of the run that made the model
) -> dict[str, Any]:
    """Score a model as training validates, by the task that reads the data: the figures that training calls ``val/…``,
    ``scored_tokens``, the ``scored_bytes`` of text that those stand for, ``split``, the task's report and ``seq_len``;
    quantized also ``loss_unquantized`` and ``loss_change``. `UserError`: the data cannot be read, or not by this model,
    or a setting does not go with it."""
    opened = _with_end(opened, settings)
    task, inputs = _task_inputs(opened, settings, data, own_task, task_changes, run)
    model = opened.model(dtype=torch.float32)
    scored = task.data(inputs)
    if scored.said:
        notice(scored.said)
    figures = _score(model, scored, settings.precision)
    if settings.quantize is None:
        return figures
    prepare_for_inference(model, settings.quantize)
    quantized = _score(model, scored, settings.precision)
    change = {"loss_unquantized": figures["loss"], "loss_change": quantized["loss"] - figures["loss"]}
    return {**quantized, "quantize": settings.quantize, **change}


def _with_end(opened: Pretrained, settings: EvaluationConfig) -> Pretrained:
    if settings.eos_token is None:
        return opened
    return replace(opened, tokenizer=opened.tokenizer.with_end_of_text(settings.eos_token))


def _task_inputs(
    opened: Pretrained,
    settings: EvaluationConfig,
    data: Mapping[str, Any],
    own_task: Mapping[str, Any] | None,
    task_changes: Mapping[str, Any],
    run: Path | None,
) -> tuple[Task, TaskInputs]:
    """The task that reads the data, and what it is told of it."""
    read = _data(data, opened.config.params.max_seq_len)
    settings.check(read.corpus)
    inputs = TaskInputs(
        data=read,
        model=opened.config,
        batch_size=settings.batch_size,
        known=opened.tokenizer,
        template_time=template_time(run) if run else None,
        run=run,
        part=settings.split,
        answers=settings.answers,
        answers_file=settings.answers_file,
        reference=_reference(settings.reference, opened, read) if settings.reference else None,
    )
    return task_for(read.corpus, own_task, task_changes), inputs


def windows_of_data(
    opened: Pretrained,
    settings: EvaluationConfig,
    data: Mapping[str, Any],
    own_task: Mapping[str, Any] | None,
    run: Path | None,
) -> tuple[Windows, int]:
    """The windows that `evaluate` would score, for a benchmark that reads them otherwise, and how long they are."""
    task, inputs = _task_inputs(opened, settings, data, own_task, {}, run)
    found = task.data(inputs).datamodule
    return partial(windows_in, found), found.seq_len


def _score(model: nn.Module, data: TaskData, precision: str | int) -> dict[str, Any]:
    quiet_lightning()
    heed_others()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    used, reason = resolve_precision(precision, device, cast(CausalLM, model).config.modules.transformer.dim)
    notice(f"precision {used} ({reason})")
    if data.prepare is not None:
        data.prepare(model, device, used)
    module = (data.make_module or LanguageModelModule)(model, val_shares=data.val_shares, tokenizer=data.tokenizer)
    trainer = quiet_trainer(device, precision=used, use_distributed_sampler=False, callbacks=list(data.callbacks))
    trainer.validate(module, datamodule=data.datamodule, verbose=False)
    about = {"split": data.datamodule.eval_split, **data.report, "seq_len": data.datamodule.seq_len}
    return {**module.val_metrics, **module.scored_counts(), **about}


def _data(values: Mapping[str, Any], longest: int) -> DataConfig:
    if values.get("seq_len") is None:
        values = {**values, "seq_len": min(longest, FINE_TUNING_SEQ_LEN)}
        if longest > FINE_TUNING_SEQ_LEN:
            notice(f"windows of {FINE_TUNING_SEQ_LEN:,} tokens; data.seq_len sets more, up to the model's {longest:,}")
    data = DataConfig.from_dict(values)
    if data.seq_len > longest:
        raise UserError(f"data.seq_len ({data.seq_len}) must be at most the model's {longest}")
    return data


def _reference(name: str, opened: Pretrained, data: DataConfig) -> nn.Module:
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
