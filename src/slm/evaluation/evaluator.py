"""A finished model's figures over a part of the data, by the task that reads it."""

from __future__ import annotations

from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import nn

from slm.models.contract import CausalLM
from slm.models.kernels.waiting import heed_others
from slm.notices import notice
from slm.training.lit_module import LanguageModelModule
from slm.training.precision import resolve_precision
from slm.training.quiet import quiet_lightning
from slm.training.tasks.task import Preparing, TaskData
from slm.training.through_head import LossThroughHead, has_plain_head


def evaluate(model: nn.Module, data: TaskData, precision: str | int) -> dict[str, Any]:
    """Run the validation that training runs.

    Args:
        model: a registered model.
        data: of the task's `evaluation`, in the model's vocabulary.
        precision: as in training; what is really used is said.

    Returns:
        The figures that training calls ``val/…``, and ``scored_tokens``, the ``scored_bytes`` of text that those stand
        for, ``split``, the report of `data` and ``seq_len``.
    """
    quiet_lightning()
    heed_others()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    used = resolve_precision(precision, device, cast(CausalLM, model).config.modules.transformer.dim)
    notice(f"precision {used.name} ({used.reason})")
    if data.prepare is not None:
        data.prepare(model, Preparing(device, used.name, resumed_from=None))
    module = (data.make_module or LanguageModelModule)(model, val_shares=data.val_shares, tokenizer=data.tokenizer)
    if not has_plain_head(model):
        module.loss = LossThroughHead(model)
    trainer = pl.Trainer(
        precision=used.name,  # type: ignore[arg-type]
        accelerator=device,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        callbacks=list(data.callbacks),
    )
    trainer.validate(module, datamodule=data.datamodule, verbose=False)
    scored = module.scored.values()
    counts = {"scored_tokens": sum(part.tokens for part in scored)} if scored else {}
    if any(part.text_bytes for part in scored):
        counts["scored_bytes"] = round(sum(part.text_bytes for part in scored))
    about = {"split": data.datamodule.eval_split, **data.report, "seq_len": data.datamodule.seq_len}
    return {**module.val_metrics, **counts, **about}
