"""A logger that raises and a full disk cost no step of training, and are said."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers import Logger

from slm.training.watch import loggers
from slm.training.watch.csv_logger import CsvLogger, read_metrics
from slm.training.watch.loggers import guarded


class Failing(Logger):
    """Raises wherever it is called, but for steps below `good_until`."""

    name = "failing"
    version = ""

    def __init__(self, good_until: int = 0) -> None:
        super().__init__()
        self.good_until = good_until
        self.rows: list[int] = []

    @property
    def experiment(self) -> Any:
        raise ConnectionError("no server")

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if (step or 0) >= self.good_until:
            raise ConnectionError("no server")
        self.rows.append(step or 0)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no hyperparameters")

    def save(self) -> None:
        raise OSError(28, "No space left on device")

    def finalize(self, status: str) -> None:
        raise TimeoutError("gave up")


def test_training_goes_on(run_cli: Any, tiny: tuple[str, ...], metrics_of: Any, tmp_path: Path) -> None:
    """Every call of one logger fails; metrics.csv has all rows, each kind of failure is one line."""
    failing = f"+logger.failing._target_={__name__}.Failing"
    outcome = run_cli("train", *tiny, "run_dir=run", failing, "+logger.failing.good_until=3")
    assert outcome.status == 0, outcome.err
    assert len(metrics_of(tmp_path / "run")) == 6
    said = [line for line in outcome.err.splitlines() if line.startswith("logger failing:")]
    for what in ("opening failed (ConnectionError: no server)", "log_metrics failed (ConnectionError", "save failed"):
        assert sum(what in line for line in said) == 1, said
    assert "logger failing: finalize failed (TimeoutError: gave up)" in "\n".join(said)
    assert said[-1] == "logger failing: it lacks 4 rows, of steps 3 to 6"


def test_a_failing_wandb_call(
    run_cli: Any, tiny: tuple[str, ...], metrics_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B offline whose `log` fails: still an instance of Lightning's class, for callbacks that look for it."""
    wandb = pytest.importorskip("wandb")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise wandb.errors.CommError("connection lost")

    monkeypatch.setattr("wandb.sdk.wandb_run.Run.log", fail)
    outcome = run_cli("train", *tiny, "run_dir=run", "logger=wandb", "trainer.max_steps=2")
    assert outcome.status == 0, outcome.err
    assert len(metrics_of(tmp_path / "run")) == 2
    assert outcome.err.count("logger wandb: log_metrics failed (CommError: connection lost)") == 1


def test_it_stays_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    """Callbacks look for loggers by class; a slow failure is not asked for again at once, nor for ever left alone."""
    now = 0.0

    class Slow(Failing):
        calls = 0

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            nonlocal now
            self.calls += 1
            now += 60.0
            raise TimeoutError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loggers.time, "monotonic", lambda: now)
        logger = guarded(Slow(), "slow")
        assert isinstance(logger, Slow)
        for step in range(1000):
            logger.log_metrics({}, step)
            now += 10.0
    assert 6 <= logger.calls <= 11, "a twentieth of 10,000 s is eight calls of a minute"
    assert capsys.readouterr().err.count("log_metrics failed") == 1


@contextlib.contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Writes beyond `size` bytes of a file fail as on a full disk, after what still fits is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _log(logger: CsvLogger, step: int, **more: float) -> None:
    logger.log_metrics({"loss": 1 / step, **more}, step)


@pytest.mark.parametrize("room", range(14, 90, 5))
def test_a_full_disk(tmp_path: Path, room: int, capsys: Any) -> None:
    """However much of a row still fitted, the table is in the end that of a disk with room. (What is said goes to
    `capsys`, since the limit is for the file of the captured output too.)"""
    tables = [CsvLogger(tmp_path / name) for name in ("full", "free")]
    for logger in tables:
        _log(logger, 1)
        with _largest_file(room if logger is tables[0] else 10**6):
            for step in (2, 3, 4):
                _log(logger, step)
            logger.log_metrics({"val": 0.1}, 4)
            _log(logger, 5, val=0.2)
        _log(logger, 6)
        logger.finalize("success")
    assert (tmp_path / "full").read_bytes() == (tmp_path / "free").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_what_is_lost_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that stays full: whole rows stay readable but for a cut last one, which a resumed run drops."""
    logger = CsvLogger(tmp_path / "table")
    _log(logger, 1)
    with _largest_file(20):
        for step in (2, 3):
            _log(logger, step)
        logger.finalize("success")
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[2] for line in said] == [
        "cannot be written (File too large); its rows wait in memory until it can",
        "the rows of steps 2 to 3 are lost",
    ]
    resumed = CsvLogger(tmp_path / "table", keep_until=2)
    _log(resumed, 3)
    assert [row["step"] for row in read_metrics(tmp_path / "table")[1]] == ["1", "3"]


def test_going_back(tmp_path: Path) -> None:
    """Rows after the step go; they are made again, perhaps with other columns."""
    logger = CsvLogger(tmp_path / "table")
    for step in range(1, 6):
        _log(logger, step)
    logger.go_back(3)
    assert [row["step"] for row in read_metrics(tmp_path / "table")[1]] == ["1", "2", "3"]
    _log(logger, 4, bad=1.0)
    assert [row["bad"] for row in read_metrics(tmp_path / "table")[1]] == ["", "", "", "1.0"]
