"""slm-plan: what a run costs before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from slm.cli.app import entry_point
from slm.cli.command import Command
from slm.cli.paths import PATHS
from slm.cli.result import Result
from slm.cli.train import checked_run, with_implied
from slm.schema import FORBID_EXTRA, NonNegativeFloat, PositiveFloat, checked, together

if TYPE_CHECKING:
    from slm.training.run_config import RunConfig

_OWN = ("device", "fit", "budget", "rate", "timing_s")


@dataclass(frozen=True)
class _Settings:
    __pydantic_config__ = FORBID_EXTRA
    device: Literal["cpu", "cuda"] | None
    fit: str | int | None
    budget: str | int | float | None
    rate: PositiveFloat | None
    timing_s: NonNegativeFloat


def plan(_: dict[str, Any], asked: tuple[_Settings, RunConfig]) -> Result:
    """The command's task."""
    from slm.training.lean_lightning import import_lightning

    import_lightning()
    from slm.study.plan.budget import budget_of
    from slm.study.plan.fit import room_of
    from slm.study.plan.plan import PlanSettings, plain, plan_of
    from slm.study.plan.planned import planned_run
    from slm.study.plan.words import in_words
    from slm.training.process import quiet_lightning

    settings, config = asked
    wanted = PlanSettings(room_of(settings.fit), budget_of(settings.budget), settings.rate, settings.timing_s)
    quiet_lightning()
    found = plan_of(planned_run(config, settings.device), wanted)
    return Result(plain(found), in_words(found))


def _checked(values: dict[str, Any]) -> tuple[_Settings, RunConfig]:
    own = {key: values[key] for key in _OWN}
    settings, run, _ = together(
        lambda: checked(_Settings, own),
        lambda: checked_run({key: value for key, value in values.items() if key not in _OWN}),
        lambda: _check_sizes(own),
    )
    return settings, run


def _check_sizes(own: dict[str, Any]) -> None:
    from slm.study.plan.budget import budget_of

    budget_of(own["budget"])


main = entry_point(Command("plan", plan, _checked, with_implied, paths=PATHS), __name__)
