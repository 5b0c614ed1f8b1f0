"""Whether the run that is to go on from a checkpoint fits it: checked before anything is written, so that a mistake
leaves the old run as it was."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from slm.data.batches.datamodule import WindowDataModule
from slm.errors import UserError, first_few
from slm.models.modules.lora import base_names
from slm.training.run.checkpoint_io import model_state, read_checkpoint


class Resumed:
    """A checkpoint to go on from; `UserError` for a file that cannot be read or is not a training run's."""

    def __init__(self, file: Path) -> None:
        content = read_checkpoint(file)
        try:
            self.step: int = content["global_step"]
            self._data: dict[str, Any] = next(content[key] for key in content if key.endswith("DataModule"))
            self._groups: list[dict[str, Any]] = content["optimizer_states"][0]["param_groups"]  # its state is large
        except (KeyError, IndexError, StopIteration):
            raise UserError(f"resume: '{file}' is no checkpoint of a training run of slm") from None
        self.file = file
        self._shapes = {name: tuple(tensor.shape) for name, tensor in model_state(content).items()}

    def check_ends_after(self, last_step: int) -> None:
        if self.step >= last_step:
            raise UserError(
                f"resume: '{self.file}' is at step {self.step} already and the run ends at {last_step}; "
                "raise trainer.max_steps or stop_after"
            )

    def check_fits(self, datamodule: WindowDataModule, model: nn.Module, optimizer: Optimizer) -> None:
        """Raise `UserError` if the position in the data would mean another sample, weights are of another shape, or the
        optimizer's state is of another one, or of other trained parameters."""
        datamodule.load_state_dict(self._data)
        left_out = base_names(model)
        mine = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in left_out}
        different = [
            f"{name} {self._shapes.get(name, 'none')} -> {mine.get(name, 'none')}"
            for name in sorted(self._shapes.keys() | mine.keys())
            if self._shapes.get(name) != mine.get(name)
        ]
        if different:
            raise UserError(
                f"resume: the model is not the checkpoint's ({first_few(different)}); "
                "leave its settings as they were, or start a new run"
            )
        if [_form(group) for group in optimizer.state_dict()["param_groups"]] != [_form(g) for g in self._groups]:
            raise UserError(
                "resume: the checkpoint is of another optimizer or of other frozen modules; "
                "leave these settings as they were, or start a new run"
            )


def _form(group: Mapping[str, Any]) -> tuple[int, set[str]]:
    """How many parameters a group has, and which settings (the schedule adds ``initial_lr``)."""
    return len(group["params"]), set(group) - {"initial_lr"}
