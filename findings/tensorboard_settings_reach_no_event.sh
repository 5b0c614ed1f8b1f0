#!/usr/bin/env bash
# Lightning's TensorBoardLogger, told to invent no metric, writes a run's settings where TensorBoard does not look.
#
# pytorch-lightning 2.6.6 with tensorboard 2.21.0. With default_hp_metric=False, which keeps a chart of one -1 out of the
# page, log_hyperparams(settings) and save() put the settings into hparams.yaml and no tag of the plugin "hparams" into
# the events; with the default there are three (experiment, start and end of the session). Seen: 0 and 3.
# Expected by most: the settings stand under HPARAMS either way, and only the invented metric is gone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 pytorch-lightning==2.6.6 tensorboard==2.21.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version

from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

assert (version("pytorch-lightning"), version("tensorboard")) == ("2.6.6", "2.21.0")


def tags(wants_metric: bool) -> int:
    logger = TensorBoardLogger("logs", name=str(wants_metric), default_hp_metric=wants_metric)
    logger.log_hyperparams({"lr": 0.1})
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.save()
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert "loss" in events.Tags()["scalars"]
    return sum(entry.plugin_data.plugin_name == "hparams" for entry in events.summary_metadata.values())


seen = tags(False), tags(True)
print(seen)
assert seen == (0, 3), "the settings are written otherwise now"
PY
