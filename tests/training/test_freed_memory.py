"""A step after the first ones takes no new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.nightly, pytest.mark.serial]

FAULTS = """
import resource, statistics, sys, torch
from slm.training.process import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def step():
    return sum(torch.ones(2**22).sum() for _ in range(16))
for _ in range(3):  # where the first ones leave holes that a later one does not quite fit into is up to the loader
    step()
taken = []
for _ in range(9):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    taken.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(statistics.median(taken))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's allocator")
def test_pages_are_faulted_in_once() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True).stdout)
        for how in ("kept", "given back")
    }
    assert faults["kept"] < 100 < 1000 < faults["given back"]
