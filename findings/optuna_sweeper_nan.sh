#!/usr/bin/env bash
# A diverged job ends a whole Optuna sweep of Hydra, by an error about something else.
#
# hydra-optuna-sweeper 1.3.0 with optuna 2.10.1 (the newest that it allows) and hydra-core 1.3.8. A task that returns nan,
# as a training does whose loss is no number, counts as failed: the sweeper calls study.tell(state=FAIL, values=[nan]),
# and Optuna takes no values with that state. So the sweep ends with status 1 and "ValueError: Values were told. Values
# cannot be specified when state is TrialState.PRUNED or TrialState.FAIL.", also with max_failure_rate=1.0, by which any
# number of jobs may fail. Expected by most: a trial that diverged is a failed trial, and the search goes on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    hydra-core==1.3.8 hydra-optuna-sweeper==1.3.0 optuna==2.10.1 "sqlalchemy==1.4.54" "numpy<2.3" setuptools
mkdir "$folder/conf"
cat >"$folder/conf/config.yaml" <<'YAML'
defaults:
  - override hydra/sweeper: optuna
x: 1
hydra:
  sweeper:
    n_trials: 3
    max_failure_rate: 1.0
    params:
      x: choice(1, 2, 3)
YAML
cat >"$folder/task.py" <<'PY'
import hydra


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def task(config):
    return float("nan")


task()
PY
cd "$folder"
status=0
"$folder/venv/bin/python" task.py -m >out.txt 2>&1 || status=$?
grep "ValueError" out.txt | tail -n 1
echo "status $status"
[ "$status" = 1 ] && grep -q "ValueError: Values were told" out.txt || { echo "changed:"; cat out.txt; exit 1; }
