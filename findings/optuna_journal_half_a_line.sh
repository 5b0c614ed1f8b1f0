#!/usr/bin/env bash
# An Optuna journal whose writer died within a line is read once more, then never again.
#
# optuna 5.0.0, JournalStorage over JournalFileBackend. Of a file that ends in half a line (a process killed, a disk
# full) all trials before it are read. The next append goes right behind the half, so that neither line is one: the
# trial that is asked for is not created, and ask() raises "AttributeError: 'JournalStorageReplayResult' object has no
# attribute '_last_created_trial_id_by_this_process'". One more append, and nobody opens the study again:
# "JSONDecodeError: Expecting ':' delimiter", though each of its finished trials lies whole in the file. Expected by
# most: half a line is cut off, or told of as damage, as long as it is the last.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optuna==5.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import json
import warnings
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

assert optuna.__version__ == "5.0.0"
warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)
journal = Path("journal.log")


def opened() -> optuna.Study:
    return optuna.load_study(storage=JournalStorage(JournalFileBackend(str(journal))), study_name="rates")


first = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(journal))), study_name="rates")
first.tell(first.ask(), 1.0)
last = journal.read_bytes().splitlines(keepends=True)[-1]
journal.write_bytes(journal.read_bytes() + last[: len(last) // 2])

study = opened()
assert [trial.value for trial in study.trials] == [1.0]
try:
    study.ask()
except AttributeError as error:
    print(f"AttributeError: {error}")
else:
    raise SystemExit("ask() works now")
for attempt in (study.ask, opened, opened):
    try:
        attempt()
    except json.JSONDecodeError as error:
        print(f"JSONDecodeError: {error}")
    else:
        raise SystemExit("the journal is read now")
PY
