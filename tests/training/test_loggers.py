"""Every logger goes on with its series when a run is resumed, and all of them hold the same numbers."""

from __future__ import annotations

import csv
import importlib
import json
import sqlite3
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from slm.training.watch.csv_logger import CsvLogger, read_metrics

SECRET = "hf_ABCDEFGHIJKLMNOPQRSTUVWX"


def test_csv_one_row_a_step(tmp_path: Path) -> None:
    """What is logged for one step shares its row; each row is on disk at once, as a kill would find it."""
    file = tmp_path / "metrics.csv"
    logger = CsvLogger(file)
    logger.log_metrics({"loss": 3.0}, step=1)
    logger.log_metrics({"loss": 2.0}, step=2)
    assert file.read_text() == "step,loss\n1,3.0\n2,2.0\n"
    logger.log_metrics({"loss": 2.5}, step=2)
    assert file.read_text() == "step,loss\n1,3.0\n2,2.5\n"


def test_csv_new_columns_widen(tmp_path: Path) -> None:
    """Validation comes later than the first row, under the row it belongs to; earlier rows stay empty there."""
    file = tmp_path / "metrics.csv"
    logger = CsvLogger(file)
    for step in (1, 2, 3):
        logger.log_metrics({"loss": 1.0 / step}, step=step)
        if step == 2:
            logger.log_metrics({"val": 9.0}, step=step)
    assert read_metrics(file) == (
        ["step", "loss", "val"],
        [
            {"step": "1", "loss": "1.0", "val": ""},
            {"step": "2", "loss": "0.5", "val": "9.0"},
            {"step": "3", "loss": repr(1 / 3), "val": ""},
        ],
    )


def test_csv_resumed_drops_what_is_made_again(tmp_path: Path) -> None:
    """Rows after the checkpoint's step go, also a half-written last one; nothing happens before the first metric."""
    file = tmp_path / "metrics.csv"
    logger = CsvLogger(file)
    for step in range(1, 6):
        logger.log_metrics({"loss": float(step), "lr": 0.1}, step=step)
        if step == 4:
            logger.log_metrics({"val": 9.0}, step=step)
    with file.open("a") as out:
        out.write("6,0.")
    before = file.read_text()
    resumed = CsvLogger(file, keep_until=3)
    assert file.read_text() == before
    resumed.log_metrics({"loss": 4.5, "lr": 0.2}, step=4)
    rows = read_metrics(file)[1]
    assert [row["loss"] for row in rows] == ["1.0", "2.0", "3.0", "4.5"]
    assert {row["val"] for row in rows} == {""}, "of a validation that is yet to be made again"
    CsvLogger(file).log_metrics({"loss": 1.0}, step=1)
    assert file.read_text() == "step,loss\n1,1.0\n", "a new run starts a new table"


def test_csv_late_rows_find_their_place(tmp_path: Path) -> None:
    """A callback of Lightning's own logs a step that is over; and one that gives none means the last. Resumed, too."""
    file = tmp_path / "metrics.csv"
    logger = CsvLogger(file)
    logger.log_metrics({"loss": 1.0}, step=10)
    logger.log_metrics({"loss": 2.0, "tokens": 2**60 + 1}, step=20)
    logger.log_metrics({"lr": 0.5}, step=19)
    logger.log_metrics({"lr": 0.25}, step=10)
    logger.log_metrics({"late": 7.0})
    expected = [
        {"step": "10", "loss": "1.0", "tokens": "", "lr": "0.25", "late": ""},
        {"step": "19", "loss": "", "tokens": "", "lr": "0.5", "late": ""},
        {"step": "20", "loss": "2.0", "tokens": str(2**60 + 1), "lr": "", "late": "7.0"},
    ]
    assert read_metrics(file)[1] == expected
    resumed = CsvLogger(file, keep_until=20)
    resumed.log_metrics({"lr": 0.125}, step=19)
    resumed.log_metrics({"loss": 3.0}, step=30)
    expected[1]["lr"] = "0.125"
    more = {"step": "30", "loss": "3.0", "tokens": "", "lr": "", "late": ""}
    assert read_metrics(file)[1] == [*expected, more]


def test_what_a_callback_logs(
    train_tiny: Any, run_cli: Any, metrics_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Lightning's `log`, in training and in validation: in the row of its step (it once stood in one of the step
    before, behind it), at every `log_every`, also where a part of the run ends; the last of each in summary.json."""
    (tmp_path / "logging_callback.py").write_text(
        "import pytorch_lightning as pl\n"
        "class Logging(pl.Callback):\n"
        "    def on_train_batch_end(self, trainer, module, *_):\n"
        "        self.log('train/mine', float(trainer.global_step))\n"
        "        self.log('step', 1000.0)\n"
        "    def on_validation_epoch_end(self, trainer, module):\n"
        "        self.log('seen', 100.0 + trainer.global_step)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = (
        *("trainer.max_steps=9", "trainer.log_every=2", "trainer.val_every=4", "trainer.global_batch_size=8"),
        mine := "+callbacks.logging._target_=logging_callback.Logging",
    )
    run = train_tiny("run", *settings)
    rows = metrics_of(run)
    assert [row["step"] for row in rows] == ["1", "2", "4", "6", "8", "9"]
    assert [float(row["train/mine"]) for row in rows] == [1, 2, 4, 6, 8, 9]
    assert [row["seen"] for row in rows] == ["", "", "104.0", "", "108.0", "109.0"]
    assert json.loads((run / "summary.json").read_text())["logged"] == {"train/mine": 9.0, "seen": 109.0}
    assert "epoch" not in rows[0]
    assert [row["train/tokens"] for row in rows] == [str(int(row["step"]) * 8 * 16) for row in rows]
    parts = train_tiny("parts", *settings, "stop_after=5")
    assert run_cli("train", "resume=parts", mine).status == 0
    assert metrics_of(parts) == rows


def test_tensorboard_and_wandb_at_once(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Both beside metrics.csv; event files read back, W&B in its offline mode. Resumed from a step before the
    last one: every step stands once in the events, and W&B goes on in a second session of the same run id
    (without an end to the first, a later run of this process would write into it)."""
    pytest.importorskip("wandb")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    changes = ("optimizer.lr=auto", f"+logger.wandb.notes={SECRET}", "trainer.keep=0", "stop_after=3")
    outcome = run_cli("train", *tiny, "logger=[tensorboard,wandb]", "run_dir=run", *changes)
    assert outcome.status == 0, outcome.err
    hparams = yaml.safe_load((tmp_path / "run/tensorboard/hparams.yaml").read_text())
    assert hparams["optimizer"]["weight_decay"] == 0.1
    again = ("resume=run/checkpoints/step_00000002.ckpt", "optimizer.weight_decay=0.2", f"+logger.wandb.notes={SECRET}")
    outcome = run_cli("train", *again)
    assert outcome.status == 0, outcome.err

    with (tmp_path / "run/metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    for name in ("train/loss", "train/lr", "val/loss"):
        logged = [(scalar.step, scalar.value) for scalar in events.Scalars(name)]
        assert logged == [(int(row["step"]), pytest.approx(float(row[name]))) for row in rows if row[name]]

    run_id = json.loads((tmp_path / "run/run.json").read_text())["logger_ids"]["wandb"]
    files = list((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] == [f"run-{run_id}.wandb"] * 2
    assert sorted(len(wandb_losses(file)) for file in files) == [3, 4]
    recorded = {step: loss for file in sorted(files) for step, loss in wandb_losses(file)}
    assert recorded == {int(row["step"]): pytest.approx(float(row["train/loss"])) for row in rows}

    started = [value.metadata.plugin_data for value in summaries(tmp_path / "run/tensorboard") if "start" in value.tag]
    assert len(started) == 2, "one a session, for the page that compares runs by their settings"
    assert b"optimizer.weight_decay" in started[0].content
    assert SECRET.encode() not in started[0].content

    # both know the settings, and what auto became (2e-3 at width 192, so 0.012 at 32); they knew none
    hparams = yaml.safe_load((tmp_path / "run/tensorboard/hparams.yaml").read_text())
    configs = [hparams, *(wandb_config(file) for file in files)]
    for config in configs:
        assert config["optimizer"]["lr"] == pytest.approx(0.012)
        assert config["model"]["params"]["vocab_size"] == 258
        assert config["logger"]["wandb"]["notes"] == "***"
    assert hparams["optimizer"]["weight_decay"] == 0.2
    assert sorted(config["optimizer"]["weight_decay"] for config in configs[1:]) == [0.1, 0.2]


def summaries(folder: Path) -> list[Any]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    files = sorted(folder.glob("events.*"))
    return [value for file in files for event in EventFileLoader(str(file)).Load() for value in event.summary.value]


def wandb_losses(file: Path) -> list[tuple[int, float]]:
    """(step, training loss) of every row of an offline W&B file."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for data in leveldb_records(file.read_bytes(), start=7):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        items = {(item.key or "/".join(item.nested_key)): item.value_json for item in record.history.item}
        if "train/loss" in items:
            found.append((int(items["trainer/global_step"]), float(items["train/loss"])))
    return found


def wandb_config(file: Path) -> dict[str, Any]:
    """The settings that an offline W&B file holds."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, Any] = {}
    for data in leveldb_records(file.read_bytes(), start=7):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        found |= {item.key: json.loads(item.value_json) for item in record.config.update if item.key}
    return found


def leveldb_records(raw: bytes, start: int) -> Iterator[bytes]:
    """Records of LevelDB's log format: blocks of 32 KiB, chunks of crc, length, kind and data in them."""
    position, record = start, b""
    while position + 7 <= len(raw):
        left_in_block = 32768 - position % 32768
        if left_in_block < 7:
            position += left_in_block
            continue
        _, length, kind = struct.unpack_from("<IHB", raw, position)
        record += raw[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last chunk of one
            yield record
            record = b""


def test_trackio(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one, offline: in the run folder, every row and all settings, one run for all parts of a resumed one; it
    prints much on stdout, of which nothing comes there."""
    if find_spec("trackio") is None:  # not imported here: its folder is read as it is
        pytest.skip("needs trackio")
    monkeypatch.setenv("TRACKIO_DIR", "")  # put back afterwards
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command = ("train", *tiny, "run_dir=run", "resume=auto", f"+logger.trackio.group={SECRET}", "logger=trackio")
    for stop in ("stop_after=3", "stop_after=null"):
        outcome = run_cli(*command, stop)
        assert (outcome.status, outcome.out) == (0, "run\n"), outcome.err
    folder = tmp_path / "run/trackio"
    said = [line for line in outcome.err.splitlines() if "trackio" in line]
    assert said == [f"trackio: TRACKIO_DIR={folder} trackio show --project slm"]
    assert "lacks" not in outcome.err
    with sqlite3.connect(next(folder.glob("*.db"))) as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
        configs = [json.loads(text) for (text,) in database.execute("SELECT config FROM configs")]
    with (tmp_path / "run/metrics.csv").open() as lines:
        expected = {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(lines)}
    logged = {step: json.loads(metrics) for _, step, metrics in rows if "train/loss" in json.loads(metrics)}
    assert {step: one["train/loss"] for step, one in logged.items()} == expected
    assert {name for name, _, _ in rows} == {"run"}
    assert configs[-1]["optimizer"]["lr"] == 0.002
    assert configs[-1]["logger"]["trackio"]["group"] == "***"


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_extra_is_one_line(
    run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = importlib.import_module

    def without(module: str, *rest: Any) -> Any:
        if module == name:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(module, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    outcome = run_cli("train", *tiny, f"logger={name}", "run_dir=run")
    assert outcome.status == 2
    assert outcome.err == f"slm-train: logger={name} needs the package '{name}': pip install 'slm[{name}]'\n"
    assert not (tmp_path / "run").exists()
