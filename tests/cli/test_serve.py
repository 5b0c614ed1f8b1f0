"""slm-serve as one types it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from documented_json import differences

pytest.importorskip("uvicorn", reason="the extra serve is not installed")


def test_a_server_from_its_start_to_ctrl_c(tiny_run: Path, tmp_path: Path) -> None:
    """JSON says where it is; the text is that of slm-generate; Ctrl-C is an end like any other."""
    command = [Path(sys.executable).with_name("slm-serve"), f"run={tiny_run}", "port=0", "json=true", "grace=1.0"]
    if not command[0].exists():
        pytest.skip("the installed package is older than slm-serve")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert differences("slm-serve", line) == []
        told = json.loads(line)
        assert told["models"] == ["run"]
        asked = {"prompt": "the ", "seed": 3, "max_tokens": 8}
        request = urllib.request.Request(
            f"{told['url']}/v1/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = json.load(answer)["choices"][0]["text"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")
    arguments = [f"run={tiny_run}", "prompt=the ", "generation.seed=3", "generation.max_new_tokens=8"]
    generate = Path(sys.executable).with_name("slm-generate")
    said = subprocess.run([generate, *arguments], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert said.stdout == text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no model was named; give run=PATH"),
        (["run=RUN", "host=0.0.0.0"], "host=0.0.0.0 lets other machines in, and there is no key: give api_key=…"),
        (["run=RUN", "port=70000"], "port should be less than or equal to 65535; got 70000"),
        (["run=RUN", "port=TAKEN"], "is it served already? port=0 takes any that is free"),
        (["run=[RUN,RUN]"], "is named twice"),
        (["run=nowhere"], "nowhere"),
        (["run=RUN", "generation.temperature=0"], "temperature"),
        (["--port", "8000"], "port=8000"),
        (["--host", "0.0.0.0"], "host=0.0.0.0"),
        (["run=RUN", "max_model_len=5"], "did you mean 'max_len'?"),
        (["run=RUN", "max_num_seqs=5"], "did you mean 'generation.batch_size'?"),
    ],
)
def test_mistakes(run_cli: Any, tiny_run: Path, arguments: list[str], message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = [word.replace("RUN", str(tiny_run)).replace("TAKEN", port) for word in arguments]
        outcome = run_cli("serve", *words)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err
    assert all(line.startswith("slm-serve: ") for line in outcome.err.splitlines())


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is shown nowhere."""
    from slm.cli.serve import KEY_VARIABLE, _key
    from slm.serve.config import ServeConfig

    monkeypatch.setenv(KEY_VARIABLE, "of the environment")
    assert _key({"api_key": None}) == "of the environment"
    assert _key({"api_key": 17}) == "17"
    assert "api_key" not in repr(ServeConfig("::1", 0, "k", 1, 1, 1.0, 1.0, 1.0, 0.0))
    del os.environ[KEY_VARIABLE]
    assert _key({"api_key": None}) is None
