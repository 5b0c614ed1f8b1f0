"""Generation as Lightning's predict step: a file of prompts, a line of JSON each as it is done."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TextIO, cast

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from slm.errors import first_few
from slm.generation.completion import Completion
from slm.generation.config import GenerationConfig, Prompt
from slm.generation.language_model import LanguageModel
from slm.generation.prompt_file import answer_of
from slm.notices import notice
from slm.training.process import quiet_lightning, quiet_trainer


class GenerationModule(pl.LightningModule):
    """A model that continues prompts, as `Trainer.predict` asks for it; `on_answer` is told of a prompt and its
    continuations, in the prompts' order, as they are there."""

    def __init__(
        self,
        language_model: LanguageModel,
        settings: GenerationConfig,
        on_answer: Callable[[str | Prompt, list[Completion]], None] = lambda prompt, answers: None,
    ) -> None:
        super().__init__()
        self.model = cast(nn.Module, language_model.model)
        self.language_model = language_model
        self.settings = settings
        self.on_answer = on_answer

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Prompts have nothing to move, and Lightning refuses frozen dataclasses."""
        return batch

    def predict_step(self, batch: Sequence[str | Prompt], batch_idx: int = 0) -> list[list[Completion]]:
        """The ``generation.n`` continuations of each prompt."""
        done: dict[int, list[Completion]] = {}
        answers: list[list[Completion]] = []
        for index, completions in self.language_model.complete_each(batch, self.settings):
            done[index] = completions
            while len(answers) in done:
                answers.append(done.pop(len(answers)))
                self.on_answer(batch[len(answers) - 1], answers[-1])
        return answers


def answer_prompts(
    language_model: LanguageModel, prompts: Sequence[str | Prompt], settings: GenerationConfig, out: TextIO
) -> None:
    """Write a line of JSON for each prompt to `out`, in their order, as soon as it and those before it are done.

    A prompt that the model cannot take has its line too, which says why; how many there are is told at the end.
    `UserError`: it can take none of them.
    """
    quiet_lightning()
    refused: list[Prompt] = []

    def write(asked: str | Prompt, completions: list[Completion]) -> None:
        prompt = Prompt.of(asked)
        if completions[0].refusal is not None:
            refused.append(prompt)
        print(json.dumps(answer_of(prompt, completions), ensure_ascii=False), file=out, flush=True)

    module = GenerationModule(language_model, settings, write)
    trainer = quiet_trainer(language_model.model.head_weight.device.type)
    # one batch: the engine below keeps its rows full across all prompts
    loader: DataLoader[Any] = DataLoader(cast(Any, list(prompts)), batch_size=len(prompts), collate_fn=list)
    try:
        trainer.predict(module, dataloaders=loader, return_predictions=False)
    except SystemExit:
        if trainer.interrupted:  # Lightning makes a status of 1 of Ctrl-C
            raise KeyboardInterrupt("interrupted; with out=FILE, the same command goes on from there") from None
        raise
    if refused:
        lines = first_few([str(prompt.line) for prompt in refused])
        notice(f"{len(refused)} of {len(prompts)} prompts were refused (line {lines}): their answers say why")
