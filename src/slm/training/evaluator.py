"""Loss, perplexity and bits per byte of a model over a whole split."""

from __future__ import annotations

from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from slm.data.datamodule import TextDataModule
from slm.data.mixture import Store, shares_of
from slm.models.contract import CausalLM
from slm.notices import notice
from slm.training.module import LanguageModelModule
from slm.training.precision import resolve_precision
from slm.training.quiet import quiet_lightning


def evaluate(
    model: nn.Module, store: Store, split: str, seq_len: int, batch_size: int, precision: str | int
) -> dict[str, Any]:
    """Score every token of a split but its first, in windows of `seq_len`.

    Args:
        model: a registered model.
        store: tokens in the model's vocabulary.
        split: "train" or "val".
        seq_len: window length; no context crosses a window's border.
        batch_size: windows at a time.
        precision: as in training; what is really used is said.

    Returns:
        ``loss`` (nats per token), ``perplexity``, ``bits_per_byte``, and what they were taken over.
    """
    quiet_lightning()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    used = resolve_precision(precision, device, cast(CausalLM, model).config.modules.transformer.dim)
    notice(f"precision {used.name} ({used.reason})")
    module = LanguageModelModule(model, tokens_per_byte=store.tokens_per_byte(split), val_shares=shares_of(store))
    if getattr(model, "inference_head", None) is not None:  # its head is no plain matrix
        module.loss = _LossThroughHead(cast(CausalLM, model))
    trainer = pl.Trainer(
        precision=used.name,  # type: ignore[arg-type]
        accelerator=device,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    datamodule = TextDataModule(store, seq_len, batch_size, eval_split=split)
    trainer.validate(module, datamodule=datamodule, verbose=False)
    counts = {name: store.meta[split][name] for name in ("tokens", "bytes", "documents")}
    return {**module.val_metrics, "split": split, **counts, "seq_len": seq_len}


class _LossThroughHead(nn.Module):
    """The cross-entropy of a model whose head is quantized: from its logits, some rows at a time."""

    _ROWS = 512

    def __init__(self, model: CausalLM) -> None:
        super().__init__()
        self.ignore_index = model.config.modules.loss.ignore_index
        self._head = model.head  # a method, so that the model is no part of this module

    def forward(self, hidden: Tensor, head_weight: Tensor, labels: Tensor, vocab_size: int) -> Tensor:
        """Summed NLL in nats; arguments as for the training loss."""
        labels = labels.masked_fill(labels < 0, self.ignore_index).flatten()
        rows = hidden.flatten(0, -2)
        total = torch.zeros((), device=hidden.device)
        for start in range(0, len(rows), self._ROWS):
            part = slice(start, start + self._ROWS)
            logits = self._head(rows[part]).float()
            total += cross_entropy(logits, labels[part], ignore_index=self.ignore_index, reduction="sum")
        return total
