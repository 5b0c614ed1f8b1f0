"""`torch.compile` where it works, and eager code where it does not."""

from contextlib import ExitStack
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import nn

from slm.models.contract import CausalLM
from slm.notices import notice
from slm.training.run import random_state

_SHOWN = 200  # characters of a reason


class Compiled(pl.Callback):
    """Compiles a model's blocks ahead of the first step, by a pass forward and backward over a batch of zeros.

    Compilation can fail on a machine for reasons of its own: no C compiler, a graphics card too old, a fault of the
    compiler. Then the blocks run as they were written, and a line says so. What only a batch of another shape brings
    to light falls back in the same way, graph by graph, with torch's own warning. Nothing is drawn from the run's
    random numbers, and no gradient is left behind.
    """

    def __init__(self) -> None:
        self._forgiving = ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        model = cast(nn.Module, pl_module.model)
        parts = compiled_parts(model)
        for part in parts:
            part.compile()
        data, states = cast(Any, trainer).datamodule, random_state.capture()
        ids = torch.zeros(data.batch_size, data.seq_len, dtype=torch.int64, device=pl_module.device)
        trained = [p for p in model.parameters() if p.requires_grad]
        try:
            with trainer.precision_plugin.forward_context():
                hidden = cast(CausalLM, model)(ids, return_hidden=True)
                torch.autograd.grad(hidden.float().sum(), trained, allow_unused=True)  # leaves no gradient
        except Exception as error:  # dynamo, inductor and the C compiler raise many kinds
            for part in parts:
                part._compiled_call_impl = None
            lines = [line for line in str(error).splitlines() if line.strip()] or [""]
            notice(
                f"torch.compile failed, training goes on without it: {type(error).__name__}: {lines[0][:_SHOWN]} "
                "(trainer.compile=false: no attempt)"
            )
        else:
            self._forgiving.enter_context(torch._dynamo.config.patch(suppress_errors=True))
        finally:
            random_state.restore(states)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._forgiving.close()


def compiled_parts(model: nn.Module) -> list[nn.Module]:
    """What is compiled: each block by itself, in place, so that no parameter is renamed (no ``_orig_mod.`` in
    checkpoints) and that all blocks are one graph, compiled once; a model without blocks as a whole."""
    blocks = getattr(getattr(model, "transformer", None), "blocks", None)
    return list(blocks) if isinstance(blocks, nn.ModuleList) else [model]
