"""Many clients for a minute: nothing fails, nothing is left over."""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CLIENTS, SECONDS = 64, 60.0
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class Client(threading.Thread):
    """Asks one thing after another; a third of its streams it leaves early."""

    def __init__(self, url: str, seed: int, until: float) -> None:
        super().__init__()
        self.place, self.draw, self.until = urlsplit(url), random.Random(seed), until
        self.done, self.left, self.faults = 0, 0, list[str]()

    def run(self) -> None:
        while time.monotonic() < self.until:
            try:
                self.one()
            except Exception as error:
                self.faults.append(repr(error))

    def one(self) -> None:
        body = {
            "prompt": "a" * self.draw.randrange(1, 120),
            "max_tokens": self.draw.randrange(1, 100),
            "temperature": self.draw.choice([0, 0.7, 1.0]),
            "logprobs": self.draw.choice([None, 3]),
            "stream": self.draw.random() < 0.7,
            "ignore_eos": True,
        }
        leaves = self.draw.random() < 1 / 3
        connection = http.client.HTTPConnection(self.place.hostname or "", self.place.port, timeout=120)
        try:
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            if leaves and not body["stream"]:
                time.sleep(self.draw.random() * 0.2)
                self.left += 1
                return
            answer = connection.getresponse()
            if answer.status != 200:
                self.faults.append(f"{answer.status} {answer.read()!r}")
            elif leaves:
                answer.read(self.draw.randrange(1, 400))
                self.left += 1
            else:
                said = answer.read()
                assert said.endswith(b"data: [DONE]\n\n") or json.loads(said)["choices"]
                self.done += 1
        finally:
            connection.close()


@pytest.mark.nightly
def test_sixty_four_clients_of_whom_a_third_leaves(start: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Memory is taken within the first third, and no more after; who leaves is no error."""
    with start(generation={"batch_size": 16}, prefixes_mib=4.0) as (url, api):
        begin = time.monotonic()
        clients = [Client(url, seed, begin + SECONDS) for seed in range(CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(SECONDS / 3)
        early = resident()
        for client in clients:
            client.join(SECONDS * 3)
        assert sum(client.done for client in clients) > CLIENTS
        assert sum(client.left for client in clients) > CLIENTS / 4
        assert [fault for client in clients for fault in client.faults] == []
        assert resident() < 1.05 * early
        deadline = time.monotonic() + 20
        while api.worker.n_open or any(model.lane.busy for model in api.models):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert all(not model.lane._known for model in api.models)
    assert "Traceback" not in capfd.readouterr().err
