"""Further loggers beside ``metrics.csv``. Each goes on with its series when a run is resumed, and ends none by failing:
that is said, the others log on, and what is lost is counted."""

import functools
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from slm.extras import require
from slm.masking import masked, masked_argument
from slm.notices import notice
from slm.schema import dotted
from slm.training.lightning_seams import opened_experiment
from slm.training.watch.trackio_logger import TrackioLogger

_REST = 20  # times as long as a failure took is the logger left alone: it costs at most a twentieth of the time
_CALLS = ("log_hyperparams", "log_graph", "after_save_checkpoint", "save")  # by Lightning and callbacks


def tensorboard(save_dir: str, resumed_step: int | None = None) -> Logger:
    """Event files in ``<run>/tensorboard``; of a resumed run, what was written after `resumed_step` is hidden."""
    require("tensorboard", "tensorboard", "logger=tensorboard")
    purge: dict[str, Any] = {} if resumed_step is None else {"purge_step": resumed_step + 1}
    return _TensorBoard(save_dir, name="tensorboard", version="", default_hp_metric=False, **purge)


def wandb(save_dir: str, project: str, offline: bool, resumed_id: str | None = None, **settings: Any) -> Logger:
    """A Weights & Biases run in the run folder, under one id for all parts of a run that is resumed. Other settings are
    arguments of ``wandb.init``; what is secret in those it writes down is masked."""
    require("wandb", "wandb", "logger=wandb")
    told = {name: value if name == "settings" else masked(value, name) for name, value in settings.items()}
    run_id = resumed_id or secrets.token_hex(4)
    # absolute, since W&B writes from a process of its own that may have been started in another folder
    folder = str(Path(save_dir).absolute())
    return _Wandb(project=project, save_dir=folder, offline=offline, id=run_id, resume="allow", **told)


def trackio(save_dir: str, project: str, name: str, resumed_id: str | None = None, **settings: Any) -> Logger:
    """A trackio run in `save_dir` (where ``TRACKIO_DIR`` is set, there), under one name for all parts of a run that is
    resumed. Other settings are arguments of ``trackio.init``; what is secret in them is masked."""
    told = {key: masked(value, key) for key, value in settings.items()}
    return TrackioLogger(Path(save_dir), project, resumed_id or name, told)


class _TensorBoard(TensorBoardLogger):
    """Writes ``hparams.yaml`` anew when a run is resumed: Lightning leaves that of the first session. Settings stand in
    the events too, for the page that compares runs by them: without a metric of its own Lightning leaves them out."""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        (Path(self.log_dir) / self.NAME_HPARAMS_FILE).unlink(missing_ok=True)
        super().log_hyperparams(params, *args, **kwargs)
        from torch.utils.tensorboard.summary import hparams

        plain = (bool, int, float, str)
        leaves = ((key, value) for key, value in dotted(params) if not isinstance(value, Mapping))
        flat = {key: value if isinstance(value, plain) else str(value) for key, value in leaves}
        for summary in hparams(flat, {"val/loss": 0.0}):  # a number that runs have
            self.experiment.file_writer.add_summary(summary)


class _Wandb(WandbLogger):
    """Ends its W&B run with the training: in a sweep the next job would go on in it."""

    @property
    def experiment(self) -> Any:
        told = sys.argv  # W&B writes the command line down, and its files lie in the run folder
        sys.argv = [masked_argument(argument) for argument in told]
        try:
            return super().experiment
        finally:
            sys.argv = told

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if (run := opened_experiment(self)) is not None:
            run.finish(exit_code=int(status != "success"))


# ---- one that fails ----


def guarded(logger: Logger, name: str) -> Logger:
    """`logger` itself, called `name` in the configuration, whose calls raise no more; it stays an instance of its
    class, so that callbacks still find it.

    Each kind of failure is said once. A logger that took long to fail (a server that does not answer) is left alone for
    twenty times as long before it is asked again. At the end it is said how many rows it lacks.
    """
    kind, guard = type(logger), _Guard(name)

    def log_metrics(self: Logger, metrics: dict[str, float], step: int | None = None) -> None:
        if not guard.call("log_metrics", kind.log_metrics, self, metrics, step)[1]:
            guard.lost_steps.append(step)

    def finalize(self: Logger, status: str) -> None:
        guard.ask_again_at = 0.0
        guard.call("finalize", kind.finalize, self, status)
        if lost := guard.lost_steps:
            notice(f"logger {name}: it lacks {len(set(lost))} rows, of steps {lost[0]} to {lost[-1]}")
            guard.lost_steps = []

    calls: dict[str, Any] = {what: guard.around(what, getattr(kind, what)) for what in _CALLS}
    if hasattr(kind, "experiment"):  # read by Lightning as training begins: most open their files or connections here
        calls["experiment"] = property(lambda self: guard.call("opening", kind.experiment.__get__, self)[0])
    logger.__class__ = type(kind.__name__, (kind,), {**calls, "log_metrics": log_metrics, "finalize": finalize})
    return logger


class _Guard:
    """What has gone wrong with one logger."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost_steps: list[int | None] = []
        self.ask_again_at = 0.0
        self._said: set[tuple[str, str]] = set()
        self._inside = False

    def around(self, what: str, method: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(method)(lambda *args, **kwargs: self.call(what, method, *args, **kwargs)[0])

    def call(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, bool]:
        """Its answer and whether it came; None and False where it failed or was not asked."""
        if self._inside:  # of the logger's own doing: the outer call is to fail, and says why
            return function(*args, **kwargs), True
        began = time.monotonic()
        if began < self.ask_again_at:
            return None, False
        self._inside = True
        try:
            return function(*args, **kwargs), True
        except Exception as error:  # a logger may raise anything
            now = time.monotonic()
            self.ask_again_at = now + _REST * (now - began)
            kind = type(error).__name__
            if (what, kind) not in self._said:
                self._said.add((what, kind))
                reason = " ".join(str(error).split())[:200]
                notice(f"logger {self.name}: {what} failed ({kind}: {reason}); training and the other loggers go on")
            return None, False
        finally:
            self._inside = False
