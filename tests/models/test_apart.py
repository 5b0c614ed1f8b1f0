"""Work whose threads end with it."""

from __future__ import annotations

import threading

import pytest
import torch

from slm.models.kernels.waiting import apart


def test_it_comes_back_or_fails_as_itself() -> None:
    threads = []

    def work() -> float:
        threads.append(threading.current_thread())
        return float((torch.ones(300, 300) @ torch.ones(300, 300)).sum())

    assert apart(work) == 300.0**3
    assert threads[0] is not threading.current_thread()
    assert not threads[0].is_alive(), "and with it the team that it computed with"
    with pytest.raises(ZeroDivisionError):
        apart(lambda: 1 / 0)
