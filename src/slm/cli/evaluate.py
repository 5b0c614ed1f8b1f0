"""slm-evaluate: loss, perplexity and bits per byte as JSON."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from slm.cli.app import run_app
from slm.cli.help import Help
from slm.errors import UserError
from slm.schema import Count, checked

if TYPE_CHECKING:
    from omegaconf import DictConfig

HELP = Help(
    summary="Score a model on held-out text: loss in nats per token, perplexity and bits per byte (which compares "
    "models of different tokenizers), over a whole split, as one JSON object on stdout.",
    usage="run=PATH|model_dir=PATH [data=… …] [key=value …]",
    examples=[
        ("slm-evaluate run=outputs/2026-01-31_12-00-00", "on the run's own validation split"),
        (
            "slm-evaluate run=outputs/2026-01-31_12-00-00 data=text data.path=notes.txt",
            "on other text (its last tenth)",
        ),
        ("slm-evaluate model_dir=my_bundle data=python_stdlib split=train", "a bundle, on a training split"),
    ],
    groups=("data",),
    settings=[
        ("run", "a run folder; its best model is taken"),
        ("model_dir", "a bundle, a Hugging Face folder or name, …; then data must be given"),
        ("split", "val or train"),
        ("data.seq_len", "window length; default the run's, or the model's longest, at most 1,024"),
        ("batch_size", "windows at a time"),
        ("precision", "32, bf16, …"),
        ("quantize", "int8 or int4: also what the loss becomes with such weights"),
    ],
)

_KEYS = {"run", "model_dir", "data", "split", "batch_size", "precision", "quantize"}


@dataclass(frozen=True)
class _Settings:
    split: Literal["train", "val"]
    batch_size: Count
    precision: str | int
    quantize: Literal["int8", "int4"] | None


def evaluate(cfg: DictConfig) -> float:
    """The Hydra task; returns the loss."""
    import torch
    from omegaconf import OmegaConf, open_dict

    from slm.cli.sources import model_source, reject_unknown
    from slm.data.config import DataConfig
    from slm.notices import notice
    from slm.training.precision_names import check_precision
    from slm.training.run_config import FINE_TUNING_SEQ_LEN
    from slm.training.run_folder import CONFIG_FILE

    reject_unknown(cfg, _KEYS)
    settings = checked(_Settings, {name: cfg[name] for name in ("split", "batch_size", "precision", "quantize")})
    check_precision(settings.precision, "precision")
    source = model_source(cfg)
    path = Path(cfg.run or cfg.model_dir).expanduser()

    from slm.sources import open_source

    opened = open_source(source)
    model = opened.model(dtype=torch.float32)
    with open_dict(cfg):
        if "kind" not in (cfg.get("data") or {}):  # not chosen anew: the run's, with what was changed of it
            if not (path / CONFIG_FILE).is_file():
                raise UserError(
                    "data is missing: the model does not say what to evaluate on; give data=text data.path=…"
                )
            cfg.data = OmegaConf.merge(OmegaConf.load(path / CONFIG_FILE).data, cfg.get("data") or {})
        cfg.model = {"params": {"max_seq_len": None}}  # what data.seq_len is where nobody sets it
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    longest = opened.config.params.max_seq_len
    if values["data"].get("seq_len") is None:
        values["data"]["seq_len"] = min(longest, FINE_TUNING_SEQ_LEN)
        if longest > FINE_TUNING_SEQ_LEN:
            notice(f"windows of {FINE_TUNING_SEQ_LEN:,} tokens; data.seq_len sets more, up to the model's {longest:,}")
    data = DataConfig.from_dict(values["data"])
    if data.seq_len > longest:
        raise UserError(f"data.seq_len ({data.seq_len}) must be at most the model's {longest}")

    from slm.data.mixture import find_data_with
    from slm.models.prepare import prepare_for_inference
    from slm.training.evaluator import evaluate as score

    store = find_data_with(data.corpus, opened.tokenizer)
    how = (store, settings.split, data.seq_len, settings.batch_size, settings.precision)
    figures = score(model, *how)
    if settings.quantize is not None:
        plain = figures["loss"]
        prepare_for_inference(model, settings.quantize)
        figures = {**score(model, *how), "quantize": settings.quantize, "loss_unquantized": plain}
        figures["loss_change"] = figures["loss"] / plain - 1
    said = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in figures.items()}
    print(json.dumps({"model": str(path), **said}, allow_nan=False))  # JSON knows no NaN
    return figures["loss"]


def main() -> None:
    """Entry point."""
    arguments = sys.argv[1:]
    if not any(argument.startswith("data=") for argument in arguments):
        # no data group is chosen, so that Hydra knows no key below it: they change those of the run
        arguments = [f"+{argument}" if argument.startswith("data.") else argument for argument in arguments]
    run_app("evaluate", evaluate, HELP, arguments, paths=("run", "model_dir", "data.path"))


if __name__ == "__main__":
    main()
