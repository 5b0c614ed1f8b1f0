"""What a run begins with that lies on disks: plugins, the run that is gone on with, weights. Found here, in one go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.errors import UserError
from slm.schema import together
from slm.training.run.folder import checkpoint_to_resume, run_of_checkpoint, template_time
from slm.training.run_config import (
    PRETRAINED,
    START_BUNDLE,
    RunConfig,
    Start,
    fine_tuning_of,
    import_plugins,
    unknown_keys,
)

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
        start = _start(values)
    except UserError as error:  # what is wrong here would be said again of all that follows from it
        raise UserError("\n".join([*unknown, str(error)])) from None
    return RunConfig.from_dict(values, start)


def _start(values: Mapping[str, Any]) -> Start:
    fine_tuning, resumed = together(lambda: fine_tuning_of(values["model"]), lambda: _resumed_run(values))
    kept = resumed / START_BUNDLE if resumed else None  # runs of before it was kept have none
    weights = None
    if fine_tuning is not None:
        weights = _opened(fine_tuning, kept if kept and kept.is_dir() else None, values["tokenizer"])
    time = template_time(resumed) if resumed else None
    return Start(weights) if time is None else Start(weights, time)


def _resumed_run(values: Mapping[str, Any]) -> Path | None:
    resume, run_dir = values["resume"], values["run_dir"]
    if not (isinstance(resume, str) and isinstance(run_dir, str)):
        return None  # another type than None is reported with the rest
    checkpoint = checkpoint_to_resume(resume, Path(run_dir))
    return run_of_checkpoint(checkpoint) if checkpoint else None


def _opened(fine_tuning: FineTuning, kept: Path | None, tokenizer: Mapping[str, Any]) -> Pretrained:
    from slm.weights.open_model import Source, find_source, open_source  # torch, which nobody else here needs

    opened = open_source(Source("slm", kept) if kept else find_source(fine_tuning.weights))
    ends = tokenizer.get("eos_token") if tokenizer.get("kind") == PRETRAINED else None
    return opened if ends is None else replace(opened, tokenizer=opened.tokenizer.with_end_of_text(str(ends)))
