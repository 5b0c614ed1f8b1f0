"""Trials of one setting, which are its repeats, taken together."""

from collections.abc import Sequence
from dataclasses import dataclass

from slm.study.sweep.space import Point
from slm.study.sweep.trials import Report, State, Trial, latest


@dataclass(frozen=True)
class Setting:
    """What varies, but for the seed, with a trial a seed."""

    index: int
    point: Point
    trials: tuple[Trial, ...]

    @property
    def state(self) -> State:
        """Pruned or failed if any trial is; else that of all, or running."""
        states = {trial.state for trial in self.trials}
        if "pruned" in states:
            return "pruned"
        if "failed" in states:
            return "failed"
        return states.pop() if len(states) == 1 else "running"

    @property
    def is_stopped(self) -> bool:
        """One of its trials was told to stop."""
        return any(trial.state == "pruned" or trial.stop_at is not None for trial in self.trials)

    @property
    def loss(self) -> float | None:
        """The mean of its trials' best losses, of those that have one."""
        losses = [trial.loss for trial in self.trials if trial.loss is not None]
        return sum(losses) / len(losses) if losses else None

    def reports(self, seed: str | None) -> tuple[Report, ...]:
        """Of the trial with this seed; none without one."""
        return next((trial.reports for trial in self.trials if trial.seed == seed), ())


def settings_of(trials: Sequence[Trial]) -> list[Setting]:
    """By index."""
    grouped: dict[int, list[Trial]] = {}
    for trial in latest(trials):
        grouped.setdefault(trial.setting, []).append(trial)
    return [Setting(index, of_it[0].point, tuple(of_it)) for index, of_it in sorted(grouped.items())]
