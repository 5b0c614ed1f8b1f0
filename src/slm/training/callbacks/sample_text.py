"""A look at what the model writes, at every validation."""

from __future__ import annotations

from typing import cast

import pytorch_lightning as pl

from slm.generation.config import GenerationConfig
from slm.generation.language_model import LanguageModel
from slm.models.contract import CausalLM


class SampleText(pl.Callback):
    """Shows a continuation of `prompt` on the terminal and adds it to ``samples.txt`` of the run.

    Sampling draws from a generator of its own, so that training is the same with and without it.

    Args:
        prompt: what to continue.
        max_new_tokens, temperature, top_k, seed: as in `GenerationConfig`.
    """

    def __init__(self, prompt: str, max_new_tokens: int, temperature: float, top_k: int, seed: int) -> None:
        self.prompt = prompt
        self.settings = GenerationConfig(max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, seed=seed)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a sample."""
        if not trainer.is_global_zero:
            return
        model = LanguageModel(cast(CausalLM, pl_module.model), pl_module.tokenizer, facts={})  # type: ignore[arg-type]
        text = self.prompt + model.generate(self.prompt, self.settings)
        with open(f"{trainer.default_root_dir}/samples.txt", "a", encoding="utf-8") as out:
            out.write(f"--- step {trainer.global_step}\n{text}\n")
        bar = trainer.progress_bar_callback
        if bar is not None:
            bar.print(f"--- sample at step {trainer.global_step}\n{text}\n---")
