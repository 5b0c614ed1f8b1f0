"""The model that training begins with: new, or of weights that exist, with rows for every token."""

from pathlib import Path
from typing import Any

from torch import nn

from slm.errors import UserError, first_few
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.models.modules.lora import add_lora
from slm.notices import notice
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.load import is_missing
from slm.training.run_config import RunConfig
from slm.weights.adapter_start import begin_with_adapter
from slm.weights.pretrained import TOKEN_ROWS, fine_tuned_model


def fit_vocabulary(config: RunConfig, tokenizer: Tokenizer, resumed: bool) -> ModelConfig:
    """The model's configuration with rows for every token; `UserError`: it has fewer, or tokens are new to the weights
    and nothing says how their rows begin."""
    needed, given = tokenizer.vocab_size, config.model.params.vocab_size
    if given is None:
        return config.model.with_vocab_size(needed)
    new = _new_tokens(config, tokenizer)
    if new and config.fine_tuning and not (config.fine_tuning.grow_vocab or (resumed and given >= needed)):
        spare = ", though they have spare rows" if given >= needed else ""
        raise UserError(
            f"{len(new)} tokens are new to the weights ({_spelt(new, tokenizer)}){spare}; model.grow_vocab=mean gives "
            "them rows that are trained, or choose what needs none (task.template=alpaca)"
        )
    if needed > given and not config.fine_tuning:
        raise UserError(
            f"model.params.vocab_size ({given}) must be at least the tokenizer's {needed}; leave it null to take it "
            "from the tokenizer"
        )
    return config.model.with_vocab_size(max(needed, given))


def start_model(config: RunConfig, model_config: ModelConfig, tokenizer: Tokenizer, resumed: bool) -> nn.Module:
    """A new model, or that of the weights to start from; what a checkpoint will give is not read first. `UserError`:
    tokens are new to the weights, and their rows would not be trained."""
    in_checkpoint = resumed and config.adapter is None  # else what LoRA leaves as it was is taken from the start again
    if config.start is None or config.fine_tuning is None or in_checkpoint:
        return build_model(model_config)
    grown = config.fine_tuning.grow_vocab
    new = _new_tokens(config, tokenizer)
    model = fine_tuned_model(config.start, model_config, grown, new)
    add_adapter(config, model)
    if config.adapter is not None and config.adapter.weights is not None and not resumed:
        begin_with_adapter(model, config.start.config, Path(config.adapter.weights).expanduser())
    if new and grown:
        _refuse_frozen_rows(model, "name it in adapter.also_train" if config.adapter else "leave its freeze false")
    if new and grown and not resumed:
        how = {"mean": "as the mean of the others", "normal": "drawn like the others"}[grown]
        notice(f"{len(new)} new tokens ({_spelt(new, tokenizer)}): their rows begin {how}, and are trained")
    return model


def add_adapter(config: RunConfig, model: nn.Module) -> None:
    """Put what ``adapter`` asks for, if anything, beside the weights of a plain model, which stay from then on."""
    if (lora := config.adapter) is not None:
        add_lora(model, lora.rank, lora.scale, lora.dropout, lora.targets, lora.also_train)


def recompute_blocks(model: nn.Module) -> None:
    """Let the transformer's blocks run again in the backward pass; raises `UserError` for a model without any."""
    transformer: Any = getattr(model, "transformer", None)
    if not hasattr(transformer, "recompute"):
        raise UserError(f"trainer.recompute: {type(model).__name__} has no transformer of slm; leave it false")
    transformer.recompute = True


def _new_tokens(config: RunConfig, tokenizer: Tokenizer) -> range:
    """Ids of `tokenizer` that the weights to start from were not trained on, with a row for them or without."""
    if config.start is None:
        return range(0)
    theirs = config.start.tokenizer
    return range(config.start.config.vocab_size if is_missing(theirs) else theirs.vocab_size, tokenizer.vocab_size)


def _spelt(ids: range, tokenizer: Tokenizer) -> str:
    spelling_of = {token_id: text for text, token_id in tokenizer.special_tokens.items()}
    return first_few([spelling_of.get(token_id, str(token_id)) for token_id in ids])


def _refuse_frozen_rows(model: nn.Module, mend: str) -> None:
    parameters = dict(model.named_parameters())
    for name in TOKEN_ROWS:
        if name in parameters and not parameters[name].requires_grad:
            raise UserError(f"model.grow_vocab makes rows of {name.split('.')[-2]} that would never be trained; {mend}")
