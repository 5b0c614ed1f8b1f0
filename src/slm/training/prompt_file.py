"""A file of prompts through `Trainer.predict`, a line of JSON each as it is done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import nn
from torch.utils.data import DataLoader

from slm.errors import UserError
from slm.generation.config import GenerationConfig
from slm.generation.language_model import LanguageModel
from slm.training.module import LanguageModelModule
from slm.training.quiet import quiet_lightning

_BATCH = 8


def read_prompts(file: Path) -> list[str]:
    """One prompt a line; of a ``.jsonl`` file, the field ``prompt`` of each line. Blank lines are passed over.

    Raises:
        UserError: the file is missing, not text, or a line of it has no prompt.
    """
    try:
        lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except FileNotFoundError:
        raise UserError(f"prompts: there is no file '{file}'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"prompts: cannot read '{file}' as text ({error})") from None
    if not lines:
        raise UserError(f"prompts: '{file}' holds no prompt")
    if file.suffix != ".jsonl":
        return lines
    return [_prompt_of(line, number, file) for number, line in enumerate(lines, start=1)]


def answer_prompts(
    language_model: LanguageModel, prompts: Sequence[str], settings: GenerationConfig, out: TextIO
) -> None:
    """Write ``{"prompt": …, "completion": …}`` a line to `out`, in the order of the prompts."""
    quiet_lightning()
    module = LanguageModelModule(
        cast(nn.Module, language_model.model), tokenizer=language_model.tokenizer, generation=settings
    )
    trainer = pl.Trainer(
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[_JsonLines(out)],
    )
    loader: DataLoader[str] = DataLoader(cast(Any, list(prompts)), batch_size=_BATCH, collate_fn=list)
    trainer.predict(module, dataloaders=loader, return_predictions=False)


class _JsonLines(BasePredictionWriter):
    def __init__(self, out: TextIO) -> None:
        super().__init__(write_interval="batch")
        self.out = out

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        for prompt, completion in zip(batch, prediction, strict=True):
            print(json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=False), file=self.out)
        self.out.flush()


def _prompt_of(line: str, number: int, file: Path) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError):
        prompt = None
    if not isinstance(prompt, str):
        raise UserError(f'prompts: line {number} of \'{file}\' has no prompt; expected {{"prompt": "…"}}')
    return prompt
