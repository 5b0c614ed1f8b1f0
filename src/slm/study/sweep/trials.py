"""The trials of a study, as its storage (Optuna's) has them. A trial is a run: one setting with one seed.

Optuna's own trial holds the setting as its parameters, the validation losses as its intermediate values and the best of
them as its value; all else is in attributes. How a trial ended is one attribute, written ahead of Optuna's state: so
whoever takes up a trial whose worker died between the two has only that state to set.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from slm.files.plain_json import without_nan
from slm.study.sweep.space import Choice, Dimension, Point, Space

State = Literal["waiting", "running", "paused", "done", "pruned", "failed"]
_TOLD = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Report:
    """A validation of a run: after `step` of `steps`, `seconds` in training; the loss in nats per token."""

    step: int
    steps: int
    seconds: float
    loss: float


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, with the figures of its summary; of one that failed, why, and whether by a user's mistake."""

    state: Literal["done", "pruned", "failed"]
    figures: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    mistake: bool = False

    @property
    def loss(self) -> float | None:
        """The best validation loss; None without one."""
        loss = self.figures.get("best_val_loss")
        return loss if isinstance(loss, float) and math.isfinite(loss) else None


@dataclass(frozen=True)
class Trial:
    """One run of a study."""

    number: int
    setting: int  # settings are counted from 0, as they were come upon
    point: Point
    seed: str | None
    folder: str  # name of its run folder
    state: State
    reports: tuple[Report, ...] = ()
    outcome: Outcome | None = None
    stop_at: int | None = None  # the step at which it was told to stop, and has not gone on since
    rung_losses: tuple[float, ...] = ()  # at each rung that it came to
    paused: dict[str, Any] = field(default_factory=dict)  # its figures, when it came to a rung last
    kills: tuple[int, int] = (0, 0)  # how often it was killed, and the last step that it had saved by then
    place: int = 0  # in the order in which trials are begun

    @property
    def is_over(self) -> bool:
        return self.state in _TOLD

    @property
    def rung(self) -> int:
        """The next one."""
        return len(self.rung_losses)

    @property
    def loss(self) -> float | None:
        """The best validation loss of what is over, or paused."""
        return (self.outcome or Outcome("pruned", self.paused)).loss

    @property
    def values(self) -> dict[str, str]:
        """What varies, the seed last."""
        return self.point if self.seed is None else {**self.point, "seed": self.seed}


class Trials:
    """Those of the study called `name` in a storage."""

    def __init__(self, storage: BaseStorage, name: str, space: Space) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.storage = storage
        self._distributions = {one.key: distribution(one) for one in space.dimensions}
        optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
        self._study = storage.get_study_id_from_name(name)

    def all(self) -> list[Trial]:
        """By number."""
        return [_trial(one) for one in self.storage.get_all_trials(self._study, deepcopy=False)]

    def add(self, setting: int, point: Point, seed: str | None, folder: str, place: int) -> None:
        """A trial that waits to be done, whole or not at all."""
        numbers = {key: parameter(value, self._distributions[key]) for key, value in point.items()}
        attributes = {"setting": setting, "point": point, "seed": seed, "folder": folder, "place": place}
        waiting = create_trial(
            state=TrialState.WAITING, params=numbers, distributions=self._distributions, user_attrs=attributes
        )
        self.storage.create_new_trial(self._study, template_trial=waiting)

    def begin(self, trial: Trial) -> None:
        """It runs from here on; to be told again of one that is taken up does nothing."""
        if trial.state == "waiting":
            self.storage.set_trial_state_values(self._id(trial), TrialState.RUNNING)

    def report(self, trial: Trial, report: Report) -> None:
        self._note(trial, f"report:{report.step}", without_nan(vars(report)))
        if math.isfinite(report.loss):
            self.storage.set_trial_intermediate_value(self._id(trial), report.step, report.loss)

    def stop(self, trial: Trial, step: int) -> None:
        """It is told to stop at `step`."""
        self._note(trial, "stop_at", step)

    def pause(self, trial: Trial, figures: Mapping[str, Any], loss: float) -> None:
        """It has come to a rung, with this loss there."""
        self._note_rung(trial, [*trial.rung_losses, loss], True, figures)

    def resume(self, trial: Trial) -> None:
        """It goes on from its rung."""
        self._note_rung(trial, trial.rung_losses, False, trial.paused)

    def _note_rung(self, trial: Trial, losses: Sequence[float], is_paused: bool, figures: Mapping[str, Any]) -> None:
        noted = {"losses": [*losses], "at": trial.stop_at, "is_paused": is_paused, "figures": without_nan(figures)}
        self._note(trial, "rung", noted)

    def killed(self, trial: Trial, times: int, saved_step: int) -> None:
        self._note(trial, "kills", [times, saved_step])

    def end(self, trial: Trial, outcome: Outcome) -> None:
        """The last that is noted of it."""
        self._note(trial, "outcome", without_nan(vars(outcome)))
        self.settle(trial, outcome)

    def settle(self, trial: Trial, outcome: Outcome) -> None:
        """Give Optuna's trial the state that its `outcome`, which is noted, says; it has none of a trial that is done
        and has no loss."""
        loss, state = outcome.loss, _TOLD[outcome.state]
        if state == TrialState.COMPLETE and loss is None:
            state = TrialState.FAIL
        values = [loss] if loss is not None and state != TrialState.FAIL else None
        self.storage.set_trial_state_values(self._id(trial), state, values)

    def _note(self, trial: Trial, key: str, value: Any) -> None:
        self.storage.set_trial_user_attr(self._id(trial), key, value)

    def _id(self, trial: Trial) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._study, trial.number)


def latest(trials: Sequence[Trial]) -> list[Trial]:
    """Of trials of one setting and seed, which there are where one that failed is tried again, the last."""
    return list({(trial.setting, trial.seed): trial for trial in trials}.values())


def distribution(dimension: Dimension) -> BaseDistribution:
    """Optuna's, of what one key may be."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    if dimension.is_int:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.is_log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.is_log)


def parameter(value: str, within: BaseDistribution) -> Any:
    """A value as it is typed, as Optuna has it."""
    if isinstance(within, CategoricalDistribution):
        return value
    return int(value) if isinstance(within, IntDistribution) else float(value)


def _trial(found: FrozenTrial) -> Trial:
    noted: Mapping[str, Any] = found.user_attrs
    reports = [_report(value) for key, value in noted.items() if key.startswith("report:")]
    outcome = Outcome(**noted["outcome"]) if "outcome" in noted else None
    is_over = outcome is not None and found.state.is_finished()
    rung = noted.get("rung", {"losses": [], "at": None, "is_paused": False, "figures": {}})
    stop_at = noted.get("stop_at")
    return Trial(
        number=found.number,
        setting=noted["setting"],
        point=noted["point"],
        seed=noted["seed"],
        folder=noted["folder"],
        state=outcome.state if outcome and is_over else _open_state(found, rung["is_paused"]),
        reports=tuple(sorted(reports, key=lambda one: one.step)),
        outcome=outcome,
        stop_at=None if stop_at == rung["at"] and not rung["is_paused"] else stop_at,
        rung_losses=tuple(rung["losses"]),
        paused=rung["figures"],
        kills=tuple(noted.get("kills", (0, 0))),
        place=noted["place"],
    )


def _open_state(found: FrozenTrial, is_paused: bool) -> State:
    if is_paused:
        return "paused"
    return "waiting" if found.state == TrialState.WAITING else "running"


def _report(noted: Mapping[str, Any]) -> Report:
    return Report(noted["step"], noted["steps"], noted["seconds"], math.nan if noted["loss"] is None else noted["loss"])
