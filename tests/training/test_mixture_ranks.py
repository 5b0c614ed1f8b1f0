"""Two ranks train on a mixture as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.nightly

# Writes down what each rank trains on: the command line of a user's own callback.
CALLBACK = """
import json, os
import pytorch_lightning as pl

class Record(pl.Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        with open(f"{trainer.default_root_dir}.rank{trainer.global_rank}", "a") as out:
            out.writelines(json.dumps(row) + "\\n" for row in batch["input_ids"].tolist())
"""


def test_every_sample_of_a_mixture_once_over_both_ranks(
    train_tiny: Any, tiny: tuple[str, ...], cache_dir: Path, tmp_path: Path, metrics_of: Any
) -> None:
    """What two ranks train on together is what one trains on, no sample twice, with the same losses of each part."""
    (tmp_path / "recording.py").write_text(CALLBACK)
    words = Path(tiny[1].partition("=")[2]).read_text()
    (tmp_path / "a.txt").write_text(words)
    (tmp_path / "b.txt").write_text(words[::-1].upper())
    kept = [setting for setting in tiny if not setting.startswith(("data", "callbacks"))]
    mixture = ["data=mixture", *(f"+data@data.parts.{name}=text" for name in "ab")]
    mixture += [*(f"data.parts.{name}.path={tmp_path / name}.txt" for name in "ab"), "+data.parts.b.weight=3"]
    recorded = ["callbacks=none", "+callbacks.record._target_=recording.Record", "trainer.global_batch_size=8"]
    environment = {**os.environ, "SLM_CACHE_DIR": str(cache_dir), "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    for ranks in (1, 2):
        command = [*kept, *mixture, *recorded, f"run_dir=by{ranks}", f"trainer.devices={ranks}"]
        done = subprocess.run(
            [Path(sys.executable).with_name("slm-train"), *command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    one, *two = ((tmp_path / name).read_text().splitlines() for name in ("by1.rank0", "by2.rank0", "by2.rank1"))
    assert len(two[0]) == len(two[1]) == len(one) // 2 == 24
    assert sorted(two[0] + two[1]) == sorted(one)
    assert len(set(one)) == len(one), "a sample came twice in the first epoch"
    for row, other in zip(metrics_of(tmp_path / "by2"), metrics_of(tmp_path / "by1"), strict=True):
        for name in ("train/loss", "val/loss", "val/loss/a", "val/loss/b"):
            if other[name]:
                assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-5), (row["step"], name)
