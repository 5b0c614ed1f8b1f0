"""Names to classes: how `model.name=mine` on the command line finds what ``register_model("mine")`` decorated."""

import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from slm.errors import UserError, did_you_mean

T = TypeVar("T")

ENTRY_POINT_GROUP = "slm.plugins"


class Registry:
    """One `kind` of thing that `slm` builds by name; `builtin` gives names and their modules, imported on first use."""

    def __init__(self, kind: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self._builtin = dict(builtin)
        self._entries: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make the decorated class or function known as `name`; `UserError` if that is taken. The same thing
        defined again (a module reloaded, a notebook's cell run twice) replaces the first."""

        def add(entry: T) -> T:
            here = entry.__module__
            owner = self._builtin.get(name, here)
            if name in self._entries:
                both: list[Any] = [entry, self._entries[name]]
                here, owner = (f"{one.__module__}.{one.__qualname__}" for one in both)
            if owner != here:
                raise UserError(f"the {self.kind} name '{name}' is taken by {owner}; choose another")
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> Any:
        """The entry called `name`; `UserError` with all names and the nearest if there is none."""
        self.check(name)
        if name not in self._entries:
            importlib.import_module(self._builtin[name])
        return self._entries[name]

    def check(self, name: str) -> str:
        """`name`, which must exist, or `UserError`; imports nothing."""
        if name not in self:
            known = self.names()
            raise UserError(f"no {self.kind} is called '{name}'{did_you_mean(name, known)} (known: {', '.join(known)})")
        return name

    def names(self) -> list[str]:
        """All known names, sorted; imports nothing."""
        return sorted(self._builtin.keys() | self._entries.keys())

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._entries


def _in(module: str, names: str) -> dict[str, str]:
    """Names and where they are defined: in the one `module`, or (``{}``) each in one that is called so."""
    return {name: module.format(name) for name in names.split()}


_TRANSFORMER, _EMBEDDINGS = "slm.models.modules.transformer", "slm.models.modules.embeddings"
MODELS = Registry("model", _in("slm.models.meta_arch.{}", "gpt"))
NORMS = Registry("norm", _in(_TRANSFORMER, "layer_norm rms_norm"))
ACTIVATIONS = Registry("activation", _in(_TRANSFORMER, "gelu gelu_tanh relu relu2 silu"))
POSITION_EMBEDDINGS = Registry("position embedding", _in(_EMBEDDINGS, "learned sinusoidal rotary none"))
ATTENTIONS = Registry("attention", _in(_TRANSFORMER, "mha"))
MLPS = Registry("mlp", _in(_TRANSFORMER, "mlp glu"))
LOSSES = Registry("loss", _in("slm.models.modules.losses", "cross_entropy"))
_PIECES = _in("slm.tokenizers.pieces", "simple regex characters") | _in("slm.tokenizers.load", "saved")
TOKENIZERS = Registry("tokenizer", _in("slm.tokenizers.{}", "byte bpe tiktoken hf_gpt2") | _PIECES)
_FAMILIES = _in("slm.weights.families.{}", "gpt2 llama gpt_neox") | _in(
    "slm.weights.families.llama", "qwen2 qwen3 mistral"
)
FAMILIES = Registry("model family", _FAMILIES)
_CORPORA = (
    "text tokens jsonl parquet csv code python_stdlib shakespeare_char babylm datasets instructions pairs unpaired"
)
CORPORA = Registry("data kind", _in("slm.data.corpora", _CORPORA))
_READERS = _in("slm.data.documents.{}", "text parquet csv warc archive") | _in("slm.data.documents.json", "json jsonl")
READERS = Registry("data format", _READERS)
TEMPLATES = Registry("chat template", _in("slm.chat.template", "alpaca chatml hf"))
TASKS = Registry("task", _in("slm.training.tasks.{}", "pretrain sft dpo kto"))
PREFERENCE_LOSSES = Registry("preference loss", _in("slm.training.tasks.preferences.losses", "dpo ipo orpo simpo"))

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
    """Import what registers the user's own: named modules, then what installed packages declare as ``slm.plugins``."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            mend = "it must be installed or lie on PYTHONPATH"
            raise UserError(f"plugins: cannot import '{name}' ({error}); {mend}") from error
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        entry_point.load()
