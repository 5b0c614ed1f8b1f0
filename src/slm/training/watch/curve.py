"""A picture of the run, once it is trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from slm.files.writing import new_file
from slm.notices import notice
from slm.plots.figure import Points
from slm.training.run.folder import METRICS_FILE
from slm.training.run.metrics_table import STEP, Row, read_metrics

CURVE_FILE = "curve.png"


class Curve(pl.Callback):
    """Draws ``curve.png`` into the run folder: losses and learning rate over the steps of ``metrics.csv``.

    It does so behind all saves of a run that came to an end of its own. What goes wrong is said and ends nothing: the
    figures are in the table.
    """

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero:
            try:
                draw_curve(Path(trainer.default_root_dir))
            except Exception as error:  # of a plotting library, its fonts, the disk
                notice(f"{CURVE_FILE} is not drawn ({type(error).__name__}: {error})")


def without_curve(callbacks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A configuration's callbacks but for this one."""
    mine = f"{Curve.__module__}.{Curve.__qualname__}"
    return {name: node for name, node in callbacks.items() if node["_target_"] != mine}


def draw_curve(run: Path) -> None:
    """Write ``curve.png`` of the run folder `run`; without rows of ``metrics.csv`` nothing."""
    table = run / METRICS_FILE
    rows = read_metrics(table)[1] if table.is_file() else []
    if not rows:
        return
    from slm.plots.curves import run_curve  # matplotlib takes a second to import
    from slm.plots.figure import as_png

    figure = run_curve(*(_points(rows, name) for name in ("train/loss", "val/loss", "train/lr")))
    with new_file(run / CURVE_FILE) as out:
        out.write(as_png(figure))


def _points(rows: list[Row], column: str) -> Points:
    return [(float(row[STEP]), float(row[column])) for row in rows if row.get(column)]
