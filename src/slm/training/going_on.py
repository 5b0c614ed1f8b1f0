"""A run that goes on from a checkpoint, its own or another's: from which one, and under which schedule."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slm.errors import UserError
from slm.notices import notice
from slm.training.build import Begun
from slm.training.optim.config import with_warmup_steps
from slm.training.parts import loggers_of
from slm.training.run.checkpoint_files import CHECKPOINTS, kept_file, link
from slm.training.run.extension import choices, describe_change, schedule_from, step_before_fall
from slm.training.run.resume_checks import Resumed, newest_before


def with_schedule(begun: Begun, optimizer: Mapping[str, Any]) -> Begun:
    """`begun` with the schedule over its steps, which are known by now, and with the warmup of the `optimizer` as it is
    configured in the same steps. A longer run under a wsd goes back to before its fall. `UserError`: the settings have
    to say what the rate is to do."""
    begun = _before_the_fall(begun)
    config, resumed = begun.config, begun.resumed
    old = resumed.schedule if resumed else None
    schedule = schedule_from(old, config.scheduler, config.trainer.steps, resumed.step if resumed else 0)
    if resumed and old and schedule != old:
        notice(describe_change(old, schedule, resumed.step))
    settled = with_warmup_steps(optimizer, schedule.shares_of)
    return replace(begun, config=replace(config, optimizer=settled), schedule=schedule)


def schedules_so_far(begun: Begun) -> list[dict[str, Any]]:
    """For ``run.json``: the schedules that a run has been under, each with the step from which on."""
    step = begun.resumed.step if begun.resumed else 0
    now = {} if begun.schedule is None else begun.schedule.to_dict()
    before = [one for one in begun.record.get("schedules", []) if one["from_step"] < step]
    goes_on = bool(before) and now.items() <= before[-1].items()
    return before if goes_on else [*before, {"from_step": step, **now}]


def keep_what_is_left(begun: Begun) -> None:
    """Keep the end of a run that has gone back to before its fall, under a name that no later save takes."""
    left = begun.left
    folder = begun.config.run_dir / CHECKPOINTS
    if left is not None and left.file.parent.resolve() == folder.resolve():
        link(left.file, kept_file(folder, left.step))


def _before_the_fall(begun: Begun) -> Begun:
    config, left = begun.config, begun.resumed
    if left is None or left.schedule is None:
        return begun
    step = step_before_fall(left.schedule, config.scheduler, config.trainer.steps, left.step)
    if step is None:
        return begun
    refused = f"trainer.max_steps={config.trainer.steps}: the rate falls from step {step} on, and "
    mend = choices(left.schedule, replace(left.schedule, max_steps=config.trainer.steps), left.step)
    if left.begins_new or Path(config.resume or "").is_file():
        raise UserError(f"{refused}{left.key} names a state of after that; name an earlier one, or {mend}")
    found = newest_before(left.run, step)
    if found is None:
        raise UserError(f"{refused}no checkpoint of before that is left; say what it is to do: {mend}")
    _say(left, found, config.run_dir)
    return replace(begun, resumed=found, left=left, loggers=loggers_of(config, found.step, begun.record))


def _say(left: Resumed, found: Resumed, run: Path) -> None:
    kept = f"; the state of step {left.step} stays as {kept_file(Path(), left.step)}" if left.run == run else ""
    notice(f"the run becomes longer: it goes on from before its rate fell, from step {found.step} ({found.file}){kept}")
