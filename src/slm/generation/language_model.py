"""A model with its tokenizer: text in, text out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from slm.generation.config import GenerationConfig
from slm.generation.decode import generate_ids
from slm.models.contract import CausalLM
from slm.schema import checked
from slm.sources import Source, find_source, open_source
from slm.tokenizers.base import Tokenizer
from slm.weights.name_table import widest_dtype


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
        prompt_ids = [*tokenizer.begin_ids, *tokenizer.encode(prompt)]
        for token_id in generate_ids(self.model, prompt_ids, settings, tokenizer.eos_id, tokenizer.vocab_size):
            if piece := decoder.push(token_id):
                yield piece
        if piece := decoder.flush():
            yield piece

    def generate(self, prompt: str, settings: GenerationConfig | None = None, **changes: Any) -> str:
        """The continuation of `prompt` as one string; arguments as for `stream`."""
        return "".join(self.stream(prompt, settings, **changes))


def load(
    source: str | Path | Source, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> LanguageModel:
    """Load a model from wherever it is.

    Args:
        source: a run folder (its best model is taken), a model bundle, a Hugging Face folder, a folder with GPT-2's
            released files, the name of such a release (``gpt2-124m``) or a name on the Hugging Face hub; or what
            `find_source` made of one.
        device: where to put it; by default a GPU if there is one, else the CPU.
        dtype: of the weights; by default as they are stored, but fp32 for fp16 weights on a CPU.

    Raises:
        UserError: there is no model there, it is damaged, or slm cannot be what it says.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    opened = open_source(source if isinstance(source, Source) else find_source(source))
    if dtype is None and place.type == "cpu" and widest_dtype(opened.tensors) == torch.float16:
        dtype = torch.float32
    return LanguageModel(cast(CausalLM, opened.model(place, dtype)), opened.tokenizer, opened.facts)
