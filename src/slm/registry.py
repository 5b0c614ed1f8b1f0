"""Names to classes: how `model.name=mine` on the command line finds the code that builds it.

A registry knows where its built-in names live and imports that file on first use, so listing
names costs nothing. Other packages add theirs with a decorator:

    from slm.registry import register_model

    @register_model("mine")
    class Mine(nn.Module): ...
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from slm.errors import UserError, did_you_mean

T = TypeVar("T")

ENTRY_POINT_GROUP = "slm.plugins"


class Registry:
    """One kind of thing `slm` builds by name.

    Args:
        kind: what an entry is, for error messages ("model", "tokenizer").
        builtin: name -> module that registers that name when imported.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self._builtin = dict(builtin)
        self._entries: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make the decorated class or function known as `name`.

        Defining the same thing again (a module reloaded, a notebook's cell run twice) replaces it.

        Raises:
            UserError: `name` is taken by something else.
        """

        def add(entry: T) -> T:
            if name in self._entries:
                here, owner = _home(entry), _home(self._entries[name])
            else:
                here, owner = entry.__module__, self._builtin.get(name, entry.__module__)
            if owner != here:
                raise UserError(f"the {self.kind} name '{name}' is taken by {owner}; choose another")
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> Any:
        """The entry called `name`.

        Raises:
            UserError: there is none; lists those that exist and the nearest.
        """
        self.check(name)
        if name not in self._entries:
            importlib.import_module(self._builtin[name])
        return self._entries[name]

    def check(self, name: str) -> None:
        """Raise `UserError` unless `name` exists; imports nothing."""
        if name not in self:
            known = self.names()
            raise UserError(f"no {self.kind} is called '{name}'{did_you_mean(name, known)} (known: {', '.join(known)})")

    def names(self) -> list[str]:
        """All known names, sorted; imports nothing."""
        return sorted(self._builtin.keys() | self._entries.keys())

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._entries


def _home(entry: Any) -> str:
    return f"{entry.__module__}.{entry.__qualname__}"


_MODULES = "slm.models.modules"

MODELS = Registry("model", {"gpt": "slm.models.meta_arch.gpt"})
NORMS = Registry("norm", dict.fromkeys(("layer_norm", "rms_norm"), f"{_MODULES}.layer_norm"))
ACTIVATIONS = Registry("activation", dict.fromkeys(("gelu", "gelu_tanh", "relu", "relu2", "silu"), f"{_MODULES}.mlp"))
POSITION_EMBEDDINGS = Registry(
    "position embedding",
    {**dict.fromkeys(("learned", "sinusoidal", "none"), f"{_MODULES}.embeddings"), "rotary": f"{_MODULES}.rotary"},
)
ATTENTIONS = Registry("attention", {"mha": f"{_MODULES}.mha"})
MLPS = Registry("mlp", dict.fromkeys(("mlp", "glu"), f"{_MODULES}.mlp"))
LOSSES = Registry("loss", {"cross_entropy": f"{_MODULES}.losses"})
TOKENIZERS = Registry(
    "tokenizer",
    {name: f"slm.tokenizers.{name}" for name in ("byte", "simple", "regex", "bpe", "tiktoken", "hf_gpt2", "saved")},
)
FAMILIES = Registry(
    "model family", {name: f"slm.weights.families.{name}" for name in ("gpt2", "llama", "qwen3", "gpt_neox")}
)
CORPORA = Registry(
    "data kind",
    {
        **{
            name: f"slm.data.corpora.{name}"
            for name in ("python_stdlib", "text", "shakespeare_char", "code", "datasets", "instructions", "pairs")
        },
        **dict.fromkeys(("jsonl", "parquet"), "slm.data.corpora.text"),
    },
)
READERS = Registry("data format", {name: f"slm.data.documents.{name}" for name in ("text", "jsonl", "json", "parquet")})
TEMPLATES = Registry("chat template", {name: f"slm.chat.templates.{name}" for name in ("alpaca", "chatml", "hf")})
TASKS = Registry("task", {name: f"slm.training.tasks.{name}" for name in ("pretrain", "sft", "dpo")})
PREFERENCE_LOSSES = Registry(
    "preference loss", {name: f"slm.training.tasks.preferences.{name}" for name in ("dpo", "ipo", "orpo", "simpo")}
)

register_model = MODELS.register
register_norm = NORMS.register
register_activation = ACTIVATIONS.register
register_position_embedding = POSITION_EMBEDDINGS.register
register_attention = ATTENTIONS.register
register_mlp = MLPS.register
register_loss = LOSSES.register
register_tokenizer = TOKENIZERS.register
register_family = FAMILIES.register
register_corpus = CORPORA.register
register_reader = READERS.register
register_template = TEMPLATES.register
register_task = TASKS.register
register_preference_loss = PREFERENCE_LOSSES.register


def load_plugins(modules: list[str]) -> None:
    """Import what registers the user's own models, tokenizers, …: the named modules, then the
    entry points of the group ``slm.plugins`` that installed packages declare.

    Raises:
        UserError: a named module cannot be imported.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UserError(
                f"plugins: cannot import '{name}' ({error}); it must be installed or lie on PYTHONPATH"
            ) from error
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        entry_point.load()
