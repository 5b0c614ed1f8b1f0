"""A model with its tokenizer: text in, text out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from slm.bundle import CONFIG_FILE, read_bundle
from slm.errors import UserError
from slm.generation.config import GenerationConfig
from slm.generation.decode import generate_ids
from slm.models.contract import CausalLM
from slm.schema import checked
from slm.tokenizers.base import Tokenizer

RUN_BUNDLE = "model"


@dataclass
class LanguageModel:
    """What `load` gives.

    Attributes:
        model: in eval mode; ``model(input_ids)`` gives logits (B, T, V).
        tokenizer: text to ids and back.
        facts: what produced it, plain types.
    """

    model: CausalLM
    tokenizer: Tokenizer
    facts: dict[str, Any]

    def stream(self, prompt: str, settings: GenerationConfig | None = None, **changes: Any) -> Iterator[str]:
        """The continuation of `prompt`, piece by piece, never half a character.

        Args:
            prompt: may be empty.
            settings: how to continue; the defaults of `GenerationConfig` if not given.
            **changes: single settings, e.g. ``max_new_tokens=64, greedy=True``.

        Raises:
            UserError: a setting is unknown or out of range, or the prompt is too long.
        """
        settings = checked(GenerationConfig, {**asdict(settings or GenerationConfig()), **changes})
        tokenizer = self.tokenizer
        decoder = tokenizer.stream_decoder()
        for token_id in generate_ids(
            self.model, tokenizer.encode(prompt), settings, tokenizer.eos_id, tokenizer.vocab_size
        ):
            if piece := decoder.push(token_id):
                yield piece
        if piece := decoder.flush():
            yield piece

    def generate(self, prompt: str, settings: GenerationConfig | None = None, **changes: Any) -> str:
        """The continuation of `prompt` as one string; arguments as for `stream`."""
        return "".join(self.stream(prompt, settings, **changes))


def load(path: str | Path, device: str | torch.device | None = None) -> LanguageModel:
    """Load a run folder or a model bundle.

    Args:
        path: a run folder (its best model is taken) or a bundle.
        device: where to put it; by default a GPU if there is one, else the CPU.

    Raises:
        UserError: there is no model there, or it is damaged.
    """
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    bundle = read_bundle(find_bundle(path), place)
    return LanguageModel(cast(CausalLM, bundle.model), bundle.tokenizer, bundle.facts)


def find_bundle(path: str | Path) -> Path:
    """The bundle folder that `path` means: itself, or the one inside a run folder."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"there is no folder '{path}'; give a run folder (run=outputs/…) or a model bundle")
    if (folder / RUN_BUNDLE / CONFIG_FILE).is_file():
        return folder / RUN_BUNDLE
    if (folder / CONFIG_FILE).is_file():
        return folder
    if (folder / "checkpoints").is_dir():
        raise UserError(f"the run '{path}' holds no model yet: no validation has finished; slm-train resume={path}")
    raise UserError(f"'{path}' is neither a run folder nor a model bundle: it holds no {CONFIG_FILE}")
