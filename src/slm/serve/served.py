"""The models that one server has, by their names."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from slm.errors import did_you_mean
from slm.generation.config import GenerationConfig
from slm.generation.language_model import LanguageModel
from slm.generation.prefixes import Prefixes
from slm.serve.answers import Model
from slm.serve.lane import Lane
from slm.serve.request_error import RequestError
from slm.serve.token_names import TokenNames

_SHOWN = ("max_new_tokens", "greedy", "temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class Served:
    """A model under its name. `generation` are the settings that the server was started with, of what requests leave
    open; a prompt and its text have at most `max_len` tokens, and keys and values of texts that were read are kept in
    `prefix_bytes`. `UserError` where the model has no tokenizer."""

    def __init__(
        self, name: str, language_model: LanguageModel, generation: Mapping[str, Any], max_len: int, prefix_bytes: int
    ) -> None:
        self.name = name
        self.language_model = language_model
        self.longest = min(max_len, language_model.model.config.params.max_seq_len)
        self.lock = threading.Lock()  # held by who encodes: a tokenizer is no two threads' at once
        self.names = TokenNames(language_model.tokenizer)
        language_model.prefixes = Prefixes(prefix_bytes) if prefix_bytes else None
        self._generation = generation
        self._created = int(time.time())
        self.settings = self.settled({})
        self.lane = Lane(language_model, self.settings, max_len)

    def settled(self, asked: Mapping[str, Any]) -> GenerationConfig:
        """All settings of a text that is asked for with some; `UserError` where they do not fit."""
        return self.language_model.settled(None, {**self._generation, **asked})

    @property
    def chats(self) -> bool:
        """Whether it answers messages."""
        return self.language_model.tokenizer.chat_template is not None and self.settings.chat is not False

    def described(self) -> Model:
        """As `/v1/models` lists it."""
        sampling = {name: getattr(self.settings, name) for name in _SHOWN}
        return {
            "id": self.name,
            "object": "model",
            "created": self._created,
            "owned_by": "slm",
            "slm": {"chat": self.chats, "max_len": self.longest, "sampling": sampling},
        }


def named(models: Sequence[Served], name: str | None) -> Served:
    """The model of this name; None: the first. `RequestError` where there is none."""
    if name is None:
        return models[0]
    found = next((one for one in models if one.name == name), None)
    if found is None:
        names = [one.name for one in models]
        message = f"there is no model '{name}'{did_you_mean(name, names)} (served: {', '.join(names)})"
        raise RequestError(message, 404, "model_not_found", "model")
    return found
