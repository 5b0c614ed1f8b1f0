"""The interactive prompt: its commands, and a session at a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from slm.bundle import write_bundle
from slm.generation.config import GenerationConfig
from slm.generation.prompt import InteractivePrompt
from slm.models.config import ModelConfig
from slm.models.modules.build import build_model
from slm.tokenizers.byte import ByteTokenizer

READY = r"\x1b\[\?2004h"  # what a terminal is told when a line is to be read


@pytest.fixture
def prompt() -> InteractivePrompt:
    return InteractivePrompt(None, GenerationConfig(temperature=0.9, seed=None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "answer", "changed"),
    [
        ("/set temperature 0.7", "  temperature = 0.7", {"temperature": 0.7}),
        ("/set greedy true", "  greedy = true", {"greedy": True}),
        ("/set seed 5", "  seed = 5", {"seed": 5}),
        ("/set seed null", "  seed = null", {}),
        ("/set  top_k   3", "  top_k = 3", {"top_k": 3}),
        ("/set temperature 0", "temperature should be greater than 0; got 0", {}),
        ("/set temperature hot", "temperature should be a valid number; got 'hot'", {}),
        ("/set temprature 1", "did you mean 'temperature'?", {}),
        ("/set temperature", "/set NAME VALUE", {}),
        ("/set", "/set NAME VALUE", {}),
        ("/hlep", "there is no command /hlep; did you mean 'help'?", {}),
        ("/help", "/set NAME VALUE   change a setting", {}),
        ("/show", "  temperature = 0.9", {}),
        ("/", "there is no command /", {}),
    ],
)
def test_commands(prompt: InteractivePrompt, line: str, answer: str, changed: dict[str, Any]) -> None:
    """A mistake is answered in the session and changes nothing."""
    assert answer in prompt.command(line)
    assert prompt.settings == GenerationConfig(**{"temperature": 0.9, "seed": None, **changed})


def _sit_down() -> None:
    """In the new process: the terminal is its own, and Ctrl-C means what it does where tests run in the background."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command at a terminal of its own, as a user sits at one."""

    def __init__(self, *command: str | Path, home: Path) -> None:
        self.fd, slave = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_sit_down,
            env={**os.environ, "HOME": str(home), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        )
        os.close(slave)

    def type(self, text: str) -> None:
        self.seen = ""
        os.write(self.fd, text.encode())

    def expect(self, pattern: str, seconds: float = 60) -> None:
        """Read until `pattern` matches what came since the last `type`."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.seen, re.DOTALL):
            ready, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"waited for {pattern!r}, saw {self.seen!r}"
            try:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
            except OSError:  # the other end is closed
                raise AssertionError(f"ended while waiting for {pattern!r}, saw {self.seen!r}") from None


def test_a_session(tmp_path: Path) -> None:
    """A text that would run for minutes, stopped by Ctrl-C; the program lives on, takes a setting and a text,
    recalls a line with the arrow key, and leaves with status 0."""
    shape = {
        "name": "gpt",
        "params": {"max_seq_len": 100_000, "vocab_size": ByteTokenizer().vocab_size},
        "modules": {
            "transformer": {"dim": 16, "n_layers": 2, "n_heads": 1},
            "position_embedding": {"kind": "none"},
        },
    }
    config = ModelConfig.from_dict(shape)
    write_bundle(tmp_path / "bundle", config, build_model(config).state_dict(), ByteTokenizer(), {})
    terminal = Terminal(
        Path(sys.executable).with_name("slm-generate"),
        f"model_dir={tmp_path / 'bundle'}",
        "generation.max_new_tokens=90000",
        "generation.stop_at_eos=false",
        home=tmp_path,
    )
    try:
        terminal.expect("/exit to leave.*" + READY)
        terminal.type("hello\r")
        terminal.expect(".{5000}")  # far more than the prompt's own redrawing
        terminal.type("\x03")
        terminal.expect(r"\d characters, .*" + READY, seconds=10)
        terminal.type("/set max_new_tokens 3\r")
        terminal.expect("  max_new_tokens = 3.*" + READY)
        terminal.type("\x1b[A\r")  # arrow up: the line before
        terminal.expect("  max_new_tokens = 3.*" + READY)
        terminal.type("abc\r")
        terminal.expect(r"\d characters, .*" + READY)
        terminal.type("/exit\r")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.process.kill()
        os.close(terminal.fd)


def test_without_a_terminal_lines_are_prompts(tiny_run: Path, run_cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``echo text | slm-generate run=…`` writes continuations alone."""
    import io

    import slm

    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat\na dog\n"))
    outcome = run_cli("generate", f"run={tiny_run}", "generation=greedy", "generation.max_new_tokens=4")
    expected = [slm.load(tiny_run).generate(text, greedy=True, max_new_tokens=4) for text in ("the cat", "a dog")]
    assert outcome.out == "".join(f"{text}\n" for text in expected)
