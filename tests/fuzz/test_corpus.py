"""What fuzzing once found, and the whole files that it begins with: read, or refused with a named error, for ever."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from targets import Fuzzed, targets

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(CORPUS.glob("*/*"))


@pytest.fixture(scope="module")
def known() -> dict[str, Fuzzed]:
    pytest.importorskip("pyarrow")
    return targets()


def test_every_file_has_a_target(known: dict[str, Fuzzed]) -> None:
    """A folder of another name would be run by nobody."""
    assert {file.parent.name for file in FOUND} <= known.keys()


def test_whole_files_are_read(known: dict[str, Fuzzed], tmp_path: Path) -> None:
    """Targets swallow refusals, so one that refuses everything would find nothing: seeds must be taken."""
    for name, fuzzed in known.items():
        for i, seed in enumerate(fuzzed.seeds):
            folder = tmp_path / f"{name}-{i}"
            folder.mkdir()
            assert fuzzed.run(seed, folder), name


@pytest.mark.parametrize("file", FOUND, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_is_no_finding_any_more(file: Path, known: dict[str, Fuzzed], tmp_path: Path) -> None:
    """Any other error than `UserError` comes through."""
    began = time.monotonic()
    known[file.parent.name].run(file.read_bytes(), tmp_path)
    assert time.monotonic() - began < 10
