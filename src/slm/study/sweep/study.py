"""A study: a folder with a run folder a trial, a storage of its trials, and what was asked, in ``study.json``."""

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from slm.errors import UserError, first_few
from slm.masking import masked, masked_argument
from slm.study.sweep.asked import STUDY_FILE, Asked, read_asked
from slm.study.sweep.claims import Claims, FileClaims, PostgresClaims
from slm.study.sweep.config import SweepConfig
from slm.study.sweep.halving import going_on, loss_at_rung, seconds_of_a_run
from slm.study.sweep.journal import journal
from slm.study.sweep.names import folder_name
from slm.study.sweep.sampling import draw, grid
from slm.study.sweep.settings import settings_of
from slm.study.sweep.space import Space, space_of
from slm.study.sweep.trials import Outcome, Trial, Trials, latest
from slm.training.run.folder import write_json

JOURNAL_FILE = "journal.log"
_CLAIMS = ".claims"
_STOPPED_WITH_ITS_SETTING = "its setting was stopped with another seed"


class Study:
    """A study that this process works on.

    Args:
        folder: of its run folders.
        asked: what it is about.
        config: of this sweep; of its settings the study has those that change results from `asked`.
    """

    def __init__(self, folder: Path, asked: Asked, config: SweepConfig) -> None:
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.asked, self.config = folder, asked, config
        self.space: Space = space_of(asked.space)
        self.trials = Trials(_storage(folder, config.storage), asked.name, self.space)
        self.claims: Claims = _claims(folder, config.storage, asked.name)

    def open(self) -> None:
        """Note what is asked, and a grid's trials; what is there already stays."""
        with self.claims.wait_for("study"):
            self.asked = replace(
                self.asked, sweep={**self.asked.sweep, "trials": self.config.trials}
            )  # there may be more
            if read_asked(self.folder) != self.asked:
                write_json(self.folder / STUDY_FILE, vars(self.asked))
            if self.config.kind == "grid":
                known = {(trial.setting, trial.seed) for trial in self.trials.all()}
                drawn = None if self.config.pruner == "none" else self.config.seed
                for setting, (place, point) in enumerate(grid(self.space, drawn)):
                    self._add(setting, point, place, known)
            if self.config.retry_failed:
                self._add_failed_again()

    def all(self) -> list[Trial]:
        """A trial a setting and seed, in their order."""
        order = {seed: index for index, seed in enumerate(self.space.seeds)}
        return sorted(latest(self.trials.all()), key=lambda trial: (trial.setting, order.get(trial.seed, 0)))

    def take(self) -> tuple[Trial, Any] | None:
        """A trial to do, and the claim of it, which the caller releases: one whose worker has died ahead of one that
        waits. None if there are none, or others have what there is."""
        while True:
            for trial in self._open():
                claim = self.claims.take(f"trial-{trial.number}")
                if claim is None:
                    continue
                if (taken := self._begun(trial.number)) is not None:
                    return taken, claim
                claim.release()
            if not self._draw() and not self._go_on_from_rungs():
                return None

    def is_over(self) -> bool:
        """Nothing is left to do, here or elsewhere."""
        return all(trial.is_over for trial in latest(self.trials.all())) and not self._lacks_settings()

    def _open(self) -> list[Trial]:
        """Trials that are not over, those that were begun first."""
        there = [trial for trial in self.trials.all() if not trial.is_over and trial.state != "paused"]
        return sorted(there, key=lambda trial: (trial.state == "waiting", trial.place, trial.number))

    def _begun(self, number: int) -> Trial | None:
        """The claimed trial, noted as running; None if it is over, or is by what is known of it."""
        known = self.trials.all()
        trial = known[number]
        if trial.is_over:
            return None
        if trial.outcome is not None:  # whoever noted it died a moment later
            self.trials.settle(trial, trial.outcome)
            return None
        setting = next(one for one in settings_of(known) if one.index == trial.setting)
        if trial.state == "waiting" and self.config.pruner != "asha" and setting.is_stopped:
            self.trials.end(trial, Outcome("pruned", error=_STOPPED_WITH_ITS_SETTING))
            return None
        self.trials.begin(trial)
        return trial

    def pause(self, trial: Trial, figures: Mapping[str, Any]) -> None:
        """It has stopped at its rung, whose loss is that of its last report, or at the rung's time what lies before."""
        loss = loss_at_rung(trial, self.config.prune_by, seconds_of_a_run(self.trials.all()))
        self.trials.pause(trial, figures, loss)

    def _go_on_from_rungs(self) -> bool:
        """Whether paused trials are to go on, or are over: none runs that could still be better."""
        with self.claims.wait_for("study"):
            trials = latest(self.trials.all())
            paused = [trial for trial in trials if trial.state == "paused"]
            chosen = going_on(settings_of(trials))
            for trial in chosen:
                self.trials.resume(trial)
            if not chosen and all(trial.is_over or trial.state == "paused" for trial in trials):
                for trial in paused:
                    self.trials.end(trial, Outcome("pruned", trial.paused))
            return bool(chosen)

    # ---- trials that are new ----

    def _lacks_settings(self) -> bool:
        known = {trial.setting for trial in self.trials.all()}
        return self.config.kind != "grid" and len(known) < min(self.config.trials or 0, self.space.size)

    def _draw(self) -> bool:
        """Whether there is a new setting now."""
        with self.claims.wait_for("study"):
            if self.config.kind == "grid" or not self._lacks_settings():
                return False
            known = settings_of(self.trials.all())
            self._complete(len(known) - 1)
            point = draw(self.config.kind, self.space, known, self.config.seed)
            if point is None:
                return False
            self._add(len(known), point, len(known), set())
            return True

    def _complete(self, setting: int) -> None:
        """Trials of those seeds of the newest setting that whoever drew it died before adding."""
        of_it = [trial for trial in self.trials.all() if trial.setting == setting]
        if of_it:
            self._add(setting, of_it[0].point, of_it[0].place, {(setting, trial.seed) for trial in of_it})

    def _add(self, setting: int, point: Mapping[str, str], place: int, known: set[tuple[int, str | None]]) -> None:
        for seed in self.space.seeds:
            if (setting, seed) not in known:
                values = dict(point) if seed is None else {**point, "seed": seed}
                self.trials.add(setting, dict(point), seed, folder_name(values), place)

    def _add_failed_again(self) -> None:
        for trial in latest(self.trials.all()):
            if trial.state == "failed":
                self.trials.add(trial.setting, trial.point, trial.seed, trial.folder, trial.place)


def asked_now(
    folder: Path, words: tuple[Sequence[str], Sequence[str]], space: Space, config: SweepConfig, threads: int
) -> Asked:
    """What is asked by this command line, typed here; `words` are its flags and the settings of every trial."""
    flags, fixed = words
    return Asked(
        name=f"{folder.name}-{secrets.token_hex(4)}",
        directory=str(Path.cwd()),
        flags=list(flags),
        fixed=[masked_argument(setting) for setting in fixed],
        space=space.as_json(),
        sweep={name: masked(value) for name, value in vars(config).items() if name not in ("join", "retry_failed")},
        threads=threads,
    )


def refuse_another(folder: Path, there: Asked, now: Asked) -> None:
    """`UserError` if `folder` holds a study that was asked for otherwise."""
    fixed = set(there.fixed) ^ set(now.fixed)
    space = [] if space_of(there.space) == space_of(now.space) else ["what varies"]
    sweep = [
        f"sweep.{name}"
        for name in ("kind", "seed", "pruner", "prune_by", "storage")
        if there.sweep[name] != now.sweep[name]
    ]
    flags = [] if there.flags == now.flags else ["where choices are looked for"]
    if differs := [*sorted(fixed), *flags, *space, *sweep]:
        raise UserError(
            f"run_dir: '{folder}' holds another sweep, which differs in {first_few(differs)}; name another folder, or "
            "type that sweep's settings to go on with it"
        )


def _storage(folder: Path, address: str | None) -> BaseStorage:
    if address is None:
        return JournalStorage(journal(folder / JOURNAL_FILE))
    try:
        return RDBStorage(_with_driver(address))
    except ImportError as error:
        raise UserError(f"sweep.storage: {error}; pip install 'slm[postgres]'") from None
    except Exception as error:  # SQLAlchemy's, of an address that leads nowhere
        reason = first_few(str(error.__cause__ or error).splitlines() or [type(error).__name__], " ", 1)
        raise UserError(f"sweep.storage: cannot open '{masked(address)}' ({masked(reason)})") from None


def _claims(folder: Path, address: str | None, name: str) -> Claims:
    if address is not None and address.startswith("postgresql"):
        return PostgresClaims(_with_driver(address), name)
    return FileClaims(folder / _CLAIMS)


def _with_driver(address: str) -> str:
    """SQLAlchemy's default driver of PostgreSQL is another one than ours."""
    return address.replace("postgresql://", "postgresql+psycopg://", 1)


def remove_claims(study: Study) -> None:
    """Of a study that is over nobody needs the files of locks."""
    with contextlib.suppress(OSError):
        for file in (study.folder / _CLAIMS).glob("*.lock"):
            file.unlink()
        (study.folder / _CLAIMS).rmdir()
