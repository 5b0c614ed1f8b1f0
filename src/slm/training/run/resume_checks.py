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
from slm.training.config import scheduler_config
from slm.training.optim.schedules import Schedule
from slm.training.run.checkpoint_files import CHECKPOINTS, checkpoints_of, fault_of, numbered_files
from slm.training.run.checkpoint_io import model_state, read_checkpoint
from slm.training.run.folder import read_config, read_record, run_of_checkpoint
from slm.training.run.resume import checkpoint_to_begin_from, place_and_step


class Resumed:
    """A checkpoint to go on from, or with `begins_new` to begin a run of its own from; `UserError` for a file that
    cannot be read or is not a training run's."""

    def __init__(self, file: Path, begins_new: bool = False) -> None:
        self.file, self.begins_new = file, begins_new
        self.key = "from_step" if begins_new else "resume"
        content = read_checkpoint(file)
        try:
            self.step: int = content["global_step"]
            self._data: dict[str, Any] = next(content[key] for key in content if key.endswith("DataModule"))
            self._groups: list[dict[str, Any]] = content["optimizer_states"][0]["param_groups"]  # its state is large
            of_then = content.get("schedule")
            self.schedule = Schedule.from_dict(of_then) if of_then else _recorded_schedule(self.run)
        except (KeyError, IndexError, StopIteration, TypeError):
            raise UserError(f"{self.key}: '{file}' is no checkpoint of a training run of slm") from None
        self._shapes = {name: tuple(tensor.shape) for name, tensor in model_state(content).items()}

    @property
    def run(self) -> Path:
        """The folder of its run; of a file that was copied out of one the file itself."""
        return run_of_checkpoint(self.file)

    def in_words(self) -> str:
        return f", begun from step {self.step} of {self.run}" if self.begins_new else f", resumed at step {self.step}"

    def check_ends_after(self, last_step: int) -> None:
        if self.step >= last_step:
            raise UserError(
                f"{self.key}: '{self.file}' is at step {self.step} already and the run ends at {last_step}; "
                "raise trainer.max_steps or stop_after"
            )

    def check_fits(self, datamodule: WindowDataModule, model: nn.Module, optimizer: Optimizer) -> None:
        """Raise `UserError` if the position in the data would mean another sample, weights are of another shape, or the
        optimizer's state is of another one, or of other trained parameters."""
        datamodule.load_state_dict(self._data)
        self.check_weights(model)
        if not self.is_of_optimizer(optimizer):
            raise UserError(
                "resume: the checkpoint is of another optimizer or of other frozen modules; "
                "leave these settings as they were, or start a new run"
            )

    def is_of_data(self, datamodule: WindowDataModule) -> bool:
        """Whether its position in the data means the same sample."""
        mine = {name: value for name, value in datamodule.state_dict().items() if name != "position"}
        return mine == {name: self._data.get(name) for name in mine}

    def is_of_optimizer(self, optimizer: Optimizer) -> bool:
        """Whether the optimizer's state is of this one, and of the same trained parameters."""
        return [_form(group) for group in optimizer.state_dict()["param_groups"]] == list(map(_form, self._groups))

    def check_weights(self, model: nn.Module) -> None:
        """Raise `UserError` if the weights are of another shape."""
        left_out = base_names(model)
        mine = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in left_out}
        different = [
            f"{name} {self._shapes.get(name, 'none')} -> {mine.get(name, 'none')}"
            for name in sorted(self._shapes.keys() | mine.keys())
            if self._shapes.get(name) != mine.get(name)
        ]
        if different:
            raise UserError(
                f"{self.key}: the model is not the checkpoint's ({first_few(different)}); "
                "leave its settings as they were, or start a new run"
            )


def _form(group: Mapping[str, Any]) -> tuple[int, set[str]]:
    """How many parameters a group has, and which settings (the schedule adds ``initial_lr``)."""
    return len(group["params"]), set(group) - {"initial_lr"}


def checkpoint_of_step(from_step: str) -> Resumed:
    """The checkpoint that ``from_step`` names, for a run of its own; `UserError` naming the steps that there are."""
    place, step = place_and_step(from_step)
    newest = checkpoint_to_begin_from(from_step)
    if step is None:
        return Resumed(newest, begins_new=True)
    by_name = numbered_files(place / CHECKPOINTS)
    for file in [file for number, file in by_name if number == step and fault_of(file) is None]:
        return Resumed(file, begins_new=True)
    named = {file for _, file in by_name}
    others = [file for file in checkpoints_of(place) if file not in named and fault_of(file) is None]
    steps = {number for number, file in by_name if fault_of(file) is None}
    for found in (Resumed(file, begins_new=True) for file in others):
        if found.step == step:
            return found
        steps.add(found.step)
    there = ", ".join(map(str, sorted(steps)))
    raise UserError(
        f"from_step: '{place}' has no whole checkpoint of step {step}; it has {there} (trainer.keep=0 keeps all)"
    )


def newest_before(run: Path, step: int) -> Resumed | None:
    """The newest whole checkpoint of `run`, up to `step`, whose rate had not begun to fall."""
    for number, file in numbered_files(run / CHECKPOINTS):
        if number <= step and fault_of(file) is None:
            found = Resumed(file)
            if found.schedule is None or number <= found.schedule.falls_at:
                return found
    return None


def _recorded_schedule(run: Path) -> Schedule | None:
    """Of a run of before checkpoints held it; None if its folder does not say."""
    try:
        config = read_config(run)
        steps = read_record(run).get("resolved", {}).get("trainer.max_steps") or config["trainer"]["max_steps"]
        return Schedule.of(scheduler_config(config["scheduler"]), int(steps))
    except (UserError, LookupError, TypeError, ValueError, AttributeError):
        return None
