"""A look at what the model writes, at every validation."""

import os
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl

from slm.errors import UserError
from slm.generation.config import GenerationConfig
from slm.generation.language_model import LanguageModel
from slm.models.contract import CausalLM
from slm.tokenizers.base import Tokenizer
from slm.training.config import SampleSettings
from slm.training.lit_module import LanguageModelModule
from slm.training.run.folder import SAMPLES_FILE


class SampleText(pl.Callback):
    """Shows a continuation of `prompt`, or an answer (`TaskData.chat`), on the terminal, and adds it to ``samples.txt``
    of the run; `settings` are those of `SampleSettings`.

    Sampling draws from a generator of its own, so that training is the same with and without it.
    """

    def __init__(self, **settings: Any) -> None:
        own = vars(SampleSettings(**settings)).copy()
        self.prompt: str = own.pop("prompt")
        self.settings = GenerationConfig(**own)
        self._size: int | None = None  # of the file, in bytes

    def state_dict(self) -> dict[str, Any]:
        return {"size": self._size or 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._size = state_dict["size"]

    def check_before_training(self, module: LanguageModelModule) -> None:
        """Let the untrained model write a token: what it refuses now it would refuse at the first validation.
        `UserError` if the prompt leaves no room for one."""
        training = module.model.training
        module.model.eval()
        try:
            self._written(module, max_new_tokens=1)
        except UserError as error:
            raise UserError(f"callbacks: sample_text.prompt: {error}") from error
        finally:
            module.model.train(training)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cut off what is of after the checkpoint, or of a run that was killed before its first."""
        file = Path(trainer.default_root_dir) / SAMPLES_FILE
        keep = self._size if trainer.global_step else 0
        if trainer.is_global_zero and keep is not None and file.is_file() and file.stat().st_size > keep:
            os.truncate(file, keep)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        text = self.prompt + self._written(cast(LanguageModelModule, pl_module))
        file = Path(trainer.default_root_dir) / SAMPLES_FILE
        file.parent.mkdir(parents=True, exist_ok=True)  # somebody may have removed it meanwhile
        with file.open("a", encoding="utf-8") as out:
            out.write(f"--- step {trainer.global_step}\n{text}\n")
            self._size = out.tell()
        if (bar := trainer.progress_bar_callback) is not None:
            bar.print(f"--- sample at step {trainer.global_step}\n{text}\n---")

    def _written(self, module: LanguageModelModule, **changes: Any) -> str:
        model = LanguageModel(cast(CausalLM, module.model), cast(Tokenizer, module.tokenizer), facts={})
        chat = module.generation.chat if module.generation else "auto"
        return model.generate(self.prompt, self.settings, chat=chat, **changes)
