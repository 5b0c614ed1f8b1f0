"""What a run begins with that lies on disks: plugins, the run that is gone on with, weights. Found here, in one go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.errors import UserError
from slm.schema import together
from slm.training.run.folder import checkpoint_to_resume, run_of_checkpoint, template_time
from slm.training.run_config import PRETRAINED, START_BUNDLE, RunConfig, fine_tuning_of, import_plugins, unknown_keys

if TYPE_CHECKING:
    from slm.weights.fine_tuning import FineTuning
    from slm.weights.pretrained import Pretrained


def run_config(values: Mapping[str, Any]) -> RunConfig:
    """The configuration of a run: plugins are imported, weights found (downloaded, maybe) and opened, all is checked.

    Args:
        values: the composed and resolved configuration, plain types.

    Raises:
        UserError: one line a problem, as many at once as can be told.
    """
    import_plugins(values.get("plugins"))
    unknown = unknown_keys(values)
    try:
        fine_tuning, run = together(lambda: fine_tuning_of(values["model"]), lambda: _resumed_run(values))
        weights = _opened(fine_tuning, run, values["tokenizer"]) if fine_tuning else None
    except UserError as error:  # what is wrong here would be said again of all that follows from it
        raise UserError("\n".join([*unknown, str(error)])) from None
    return RunConfig.from_dict(values, weights, template_time(run) if run else None)


def _resumed_run(values: Mapping[str, Any]) -> Path | None:
    resume, run_dir = values["resume"], values["run_dir"]
    if not (isinstance(resume, str) and isinstance(run_dir, str)):
        return None  # another type than None is reported with the rest
    checkpoint = checkpoint_to_resume(resume, Path(run_dir))
    return run_of_checkpoint(checkpoint) if checkpoint else None


def _opened(fine_tuning: FineTuning, run: Path | None, tokenizer: Mapping[str, Any]) -> Pretrained:
    """Of a resumed run what its folder keeps of the weights; runs of before it was kept have none."""
    from slm.weights.open_model import Source, find_source, open_source  # torch, which nobody else here needs

    kept = run is not None and (run / START_BUNDLE).is_dir()
    opened = open_source(Source("slm", run / START_BUNDLE) if run and kept else find_source(fine_tuning.weights))
    ends = tokenizer.get("eos_token") if tokenizer.get("kind") == PRETRAINED else None
    return opened if ends is None else replace(opened, tokenizer=opened.tokenizer.with_end_of_text(str(ends)))
