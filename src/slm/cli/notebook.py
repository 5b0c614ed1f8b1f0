"""What `import slm` offers beside `load`: a configuration as `slm-train` would compose it, its model, its data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.cli.app import refuse_mistakes, rewritten
from slm.cli.command import CommandLine, read
from slm.cli.train import COMMAND
from slm.errors import UserError, refuse

if TYPE_CHECKING:
    from torch import nn

    from slm.data.batches.datamodule import WindowDataModule
    from slm.training.run_config import RunConfig
    from slm.training.tasks.task import TaskData


def config(*settings: str, config_dir: str | Path | None = None) -> RunConfig:
    """The configuration that ``slm-train`` with these settings has, typed and checked: ``config("model=gpt2_base",
    "optimizer.lr=3e-4").model.modules.transformer.dim`` is 768.

    No data is read and no folder made; weights (``model.weights=…``) are found and opened, plugins imported.

    Args:
        settings: as they are typed on the command line, one a string.
        config_dir: a folder of YAML of your own, as ``--config-dir``.

    Raises:
        UserError: the command's own words, a line for each thing that is wrong.
    """
    if flags := [setting for setting in settings if setting.startswith("-")]:
        raise UserError(f"config takes settings, group=choice and key=value; '{flags[0]}' is for the command line")
    line = read([*([] if config_dir is None else [f"--config-dir={config_dir}"]), *settings])
    line, problems = rewritten(COMMAND, line)
    try:
        refuse(problems)
        return _checked(line)
    except UserError:  # composing stops at the first mistake
        refuse_mistakes(COMMAND, line, problems)
        raise


def _checked(line: CommandLine) -> RunConfig:
    from slm.cli.composition import OF_HYDRA, Composition, explain
    from slm.cli.mistakes import with_suggestions

    try:
        cfg = Composition(COMMAND.config_name, line.config_dir).composed(COMMAND.quoted(line))
    except OF_HYDRA as error:
        raise UserError(explain(error) or str(error)) from None
    try:
        config: RunConfig = COMMAND.checked(cfg)[1]
    except UserError as error:
        raise UserError(with_suggestions(COMMAND, str(error), cfg)) from None
    return config


def build(config: RunConfig) -> nn.Module:
    """The model of a configuration with the weights that a run by it begins with, in training mode, on torch's default
    device; `torch`'s random numbers stay as they were. Where the vocabulary is the tokenizer's (``model=base``), or
    training begins with weights that exist, the data is read for it. Raises `UserError` as the run would."""
    import torch

    from slm.models.contract import build_model
    from slm.training.first_model import fit_vocabulary, start_model

    if config.resume is not None or config.from_step is not None:
        given = "resume" if config.resume is not None else "from_step"
        raise UserError(f"build gives the model that a run begins with; that of {given}= is given by slm.load(RUN)")
    with torch.random.fork_rng():
        if config.start is None and config.model.params.vocab_size is not None:
            torch.manual_seed(config.seed)
            return build_model(config.model)
        tokenizer = _read(config).tokenizer
        shape = fit_vocabulary(config, tokenizer, resumed=False)
        torch.manual_seed(config.seed)
        return start_model(config, shape, tokenizer, resumed=False)


def data(config: RunConfig) -> WindowDataModule:
    """The data of a configuration, a LightningDataModule: batches ``{"input_ids": (B, T), "labels": (B, T)}`` of
    ``train_dataloader()``, endless, in the order of a run by it, and of ``val_dataloader()``. The text is tokenized
    now, unless that was done before (`slm-prepare`, a run). Raises `UserError` as the run would."""
    return _read(config).datamodule


def _read(config: RunConfig) -> TaskData:
    from slm.notices import notice
    from slm.training.plan import with_batches

    settled: Any = with_batches(config, "cpu", n_devices=1)
    found: TaskData = settled.task.data(settled.task_inputs())
    notice(found.said)
    return found
