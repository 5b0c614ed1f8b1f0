"""What a study was asked for, in ``study.json``. Imports no Optuna."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.files.reading import read_json_object
from slm.schema import Int, Text, checked_file

STUDY_FILE = "study.json"


@dataclass(frozen=True)
class Asked:
    """What a study is about. Whoever goes on with it, or joins it, asks for the same."""

    name: Text  # in its storage, which may hold other studies
    directory: Text  # where the command was typed, from which its relative paths go out
    flags: list[Text]  # of the command: where else Hydra looks for choices
    fixed: list[Text]  # settings that every trial has, masked
    space: dict[str, Any]
    sweep: dict[str, Any]  # settings of the sweep
    threads: Int  # of a trial


def read_asked(folder: Path) -> Asked | None:
    """None of a folder that holds no study."""
    file = folder / STUDY_FILE
    return checked_file(Asked, read_json_object(file), file, "restore it") if file.is_file() else None
