"""What tasks on preferences share: weights that exist, and a reference to compare them with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from slm.errors import UserError
from slm.training.optim.config import preference_lr
from slm.training.tasks.task import ChatTask, TaskInputs

if TYPE_CHECKING:
    from slm.tokenizers.base import Tokenizer

Reference = Literal["none", "as training begins", "given", "kept by the run"]


@dataclass(frozen=True)
class PreferenceTask(ChatTask):
    """A task that makes answers likelier or unlikelier."""

    name: ClassVar[str]  # for messages
    rows_a_sample: ClassVar[int] = 2
    scores: ClassVar[bool] = True
    default_template: ClassVar[str] = "alpaca"

    def fine_tuning_lr(self, width: int) -> float:
        return preference_lr(width)

    def reference_of(self, inputs: TaskInputs, data_fingerprint: str) -> Reference:
        """Where the reference is from. A model is scored beside the one that is given, or that its run kept of this
        very data."""
        from slm.training.run.folder import read_record

        if inputs.part is None:
            return "as training begins"
        if inputs.reference is not None:
            return "given"
        if inputs.run is not None and read_record(inputs.run).get("data_fingerprint") == data_fingerprint:
            return "kept by the run"
        return "none"

    def tokenizer_in_template(self, inputs: TaskInputs) -> Tokenizer:
        """That of the weights, with the template that this needs; of a finished model as it is."""
        if inputs.known is None:
            raise UserError(f"task={self.name} tunes weights that exist; name them (model.weights=…)")
        if inputs.new_tokenizer is not None:
            raise UserError(f"task={self.name} takes the tokenizer of model.weights; leave tokenizer out")
        return inputs.known if inputs.part else self.in_template(inputs.known)
