"""What becomes of the learning rate in a run that is gone on with under another number of steps, or other settings."""

from dataclasses import replace

from slm.errors import UserError
from slm.training.config import SchedulerConfig
from slm.training.optim.schedules import Schedule, describe_schedule

_CHOICES = "scheduler.on_extend="


def step_before_fall(old: Schedule | None, config: SchedulerConfig, max_steps: int, step: int) -> int | None:
    """The step that a run at `step` has to go back to when it becomes longer under a wsd, whose fall is for the end
    alone; None where it goes on from where it is."""
    if old is None or config.name != "wsd" or not _is_longer(old, config, max_steps):
        return None
    return old.falls_at if config.on_extend is None and step > old.falls_at else None


def schedule_from(old: Schedule | None, config: SchedulerConfig, max_steps: int, step: int) -> Schedule:
    """The schedule of a run that goes on after `step` steps under `old` (None: not known) and is to end at `max_steps`.
    `UserError`: `config` has to say what the rate is to do."""
    if old is None:
        return Schedule.of(config, max_steps)
    if replace(config, on_extend=None) == replace(old.config, on_extend=None) and max_steps == old.max_steps:
        return old
    asked = replace(old, config=config, max_steps=max_steps, held=None, falls_from=0)
    if not _is_longer(old, config, max_steps):
        return replace(asked, falls_from=min(step, max_steps))
    if config.name in ("none", "constant", "wsd") and config.on_extend is None:
        return asked
    if config.on_extend == "rewarm":
        return _rewarmed(old, config, max_steps, step)
    if config.on_extend == "hold":
        return replace(asked, held=_held(old, step))
    if config.on_extend is None:
        raise UserError(
            f"trainer.max_steps={max_steps}: {describe_schedule(old)} has been followed for {step} of {old.max_steps} "
            f"steps; say what the rate is to do: {choices(old, asked, step)}"
        )
    return asked


def choices(old: Schedule, stretched: Schedule, step: int) -> str:
    """What ``scheduler.on_extend`` may be, with what each would do to a run that is at `step`."""
    now, then = (f"{100 * one.factor(step):.3g} %" for one in (old, stretched))
    ways = [
        f"{_CHOICES}rewarm (from {now} of the peak up to it again over the warmup, then down to the end)",
        f"{_CHOICES}stretch (as if it had been {stretched.max_steps} steps from the start: at once {then})",
        *([f"{_CHOICES}hold ({now} to the end)"] if old.factor(step) else []),
    ]
    return ", ".join(ways)


def describe_change(old: Schedule, new: Schedule, step: int) -> str:
    """In words, what of the schedule is other than until now, and whether the rate makes a jump."""
    before, after = (100 * one.factor(step) for one in (old, new))
    jump = f"; the rate goes from {before:.3g} % to {after:.3g} % of the peak" if abs(before - after) > 1 else ""
    return (
        f"schedule: {describe_schedule(new)}, over {new.max_steps} steps; until now {describe_schedule(old)}, over "
        f"{old.max_steps}{jump}"
    )


def _is_longer(old: Schedule, config: SchedulerConfig, max_steps: int) -> bool:
    """Of a schedule of another name all is said by that name."""
    return max_steps > old.max_steps and config.name == old.config.name


def _rewarmed(old: Schedule, config: SchedulerConfig, max_steps: int, step: int) -> Schedule:
    """Up to the peak again and down over the steps to come (Ibrahim et al. 2024, "Simple and scalable strategies to
    continually pre-train large language models")."""
    return Schedule(config, max_steps, max_steps - step, begins_at=step, begins_with=old.factor(step))


def _held(old: Schedule, step: int) -> float:
    if not old.factor(step):
        raise UserError(f"{_CHOICES}hold: the rate is 0 from step {step} on, and nothing would be learnt; take another")
    return old.factor(step)
