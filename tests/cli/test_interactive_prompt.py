"""The interactive prompt: its commands, conversations, and a session at a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from slm.errors import UserError
from slm.generation.completion import Completion
from slm.generation.config import GenerationConfig, Prompt
from slm.generation.language_model import LanguageModel
from slm.generation.prompt_file import read_prompts
from slm.generation.repl.loop import InteractivePrompt
from slm.generation.repl.session import Conversation
from slm.generation.repl.terminal import visible
from slm.models.config import ModelConfig
from slm.models.contract import build_model
from slm.tokenizers.base import Tokenizer
from slm.tokenizers.byte import ByteTokenizer
from slm.tokenizers.hf_files import save_huggingface
from slm.tokenizers.hf_gpt2 import HfGpt2Tokenizer
from slm.weights.bundle import write_bundle

READY = r"\x1b\[\?2004h"  # what a terminal is told when a line is to be read
EOS = 256

TEMPLATE = """{{ bos_token }}{% for message in messages %}
{% if message.role == "system" and message.content == "no" %}{{ raise_exception("not this") }}{% endif %}
{% if message.content == "break" %}{{ 1 // 0 }}{% endif %}
<{{ message.role }}>{% generation %}{{ message["content"] | tojson }}{% endgeneration %}{{ eos_token }}
{% endfor %}
{%- if add_generation_prompt %}<assistant>{{ mood }}{% endif %}"""


def tokenizer_with(template: str | None) -> Tokenizer:
    backend = ByteTokenizer().to_huggingface()
    names = {"bos_token": "<|pad|>"}
    return HfGpt2Tokenizer(backend, "<|endoftext|>", "<|pad|>", special_names=names, chat_template=template)


def config_of(max_seq_len: int) -> ModelConfig:
    """One layer without positions."""
    return ModelConfig.from_dict(
        {
            "name": "gpt",
            "params": {"max_seq_len": max_seq_len, "vocab_size": ByteTokenizer().vocab_size},
            "modules": {
                "transformer": {"dim": 16, "n_layers": 1, "n_heads": 1},
                "position_embedding": {"kind": "none"},
            },
        }
    )


@pytest.fixture
def prompt_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., InteractivePrompt]:
    """``prompt_with(template, **settings)``: a prompt on a model of random weights that takes 400 tokens."""

    def make(template: str | None = None, **settings: Any) -> InteractivePrompt:
        torch.manual_seed(0)
        model = build_model(config_of(400)).eval()
        changed = {"temperature": 0.9, "max_new_tokens": 8, "stop_at_eos": False, **settings}
        return InteractivePrompt(LanguageModel(model, tokenizer_with(template), {}), GenerationConfig(**changed))

    return make


@pytest.mark.parametrize(
    ("line", "answer", "changed"),
    [
        ("/set temperature 0.7", "  temperature = 0.7 (at the start 0.9)", {"temperature": 0.7}),
        ("/set greedy true", "  greedy = true", {"greedy": True}),
        ("/set seed 5", "  seed = 5", {"seed": 5}),
        ("/set seed null", "  seed = null", {}),
        ("/set  top_k   3", "  top_k = 3", {"top_k": 3}),
        ('/set stop ["\\n", END]', '  stop = ["\\n", "END"]', {"stop": ["\n", "END"]}),
        ("/set logit_bias {5: -2.5}", "  logit_bias = {5: -2.5}", {"logit_bias": {5: -2.5}}),
        ("/set temperature 0", "temperature should be greater than 0; got 0", {}),
        ("/set temperature hot", "temperature should be a valid number; got 'hot'", {}),
        ("/set temprature 1", "there is no setting 'temprature'; did you mean 'temperature'?", {}),
        ("/set temperature", "  temperature = 0.9; /set NAME VALUE changes it", {}),
        ("/set stop [a", "stop: cannot read '[a'", {}),
        ("/set quantize int8", "quantize is done when a model is loaded", {}),
        ("/set batch_size 2", "batch_size is for a file of prompts", {}),
        ("/set", "/set NAME VALUE", {}),
        ("/hlep", "there is no command /hlep; did you mean 'help'?", {}),
        ("/help", "/set NAME VALUE   change a setting", {}),
        ("/show", "  temperature = 0.9", {}),
        ("/system be kind", "this model has no chat template, which /system needs", {}),
        ("/raw", "this model has no chat template, which /raw needs", {}),
        ("/probabilities", "texts in the colours of their probability", {}),
        ("/save", "/save FILE", {}),
        ("/save a.txt", "nothing was written yet", {}),
        ("/", "there is no command /", {}),
    ],
)
def test_commands(
    prompt_with: Callable[..., InteractivePrompt], line: str, answer: str, changed: dict[str, Any]
) -> None:
    """A mistake is answered in the session and changes nothing."""
    commands = prompt_with(max_new_tokens=256, stop_at_eos=True).commands
    assert answer in commands.run(line)
    assert commands.settings == GenerationConfig(**{"temperature": 0.9, **changed})


def test_chat_mode_begins_and_is_reset_as_the_settings_have_it(prompt_with: Callable[..., InteractivePrompt]) -> None:
    """A reset turned chat on where a session began without it; a model without a template took chat=true in silence."""
    assert prompt_with(TEMPLATE).commands.chatting
    commands = prompt_with(TEMPLATE, chat=False).commands
    assert not commands.chatting
    commands.run("/raw")
    assert commands.chatting
    commands.run("/reset")
    assert not commands.chatting
    for settings in ({"chat": True}, {"system": "Be kind."}, {"template_args": {"a": 1}}):
        with pytest.raises(UserError, match="has no chat template"):
            prompt_with(None, **settings)


def test_what_show_shows_set_takes(prompt_with: Callable[..., InteractivePrompt]) -> None:
    """Every setting, also those whose YAML is not Python's way of writing them; `/reset` goes back."""
    other = GenerationConfig(
        greedy=True, temperature=0.5, stop=["\n\n", "a: 'b'"], logit_bias={3: -1.5, 4: 2.0}, seed=7, overflow="slide"
    )
    commands, shown = prompt_with().commands, prompt_with(**asdict(other)).commands.run("/show")
    for line in shown.splitlines():
        name, _, value = line.strip().partition(" = ")
        assert f"  {name} = {value}" in commands.run(f"/set {name} {value}")
    assert commands.settings == other
    commands.run("/reset")
    assert commands.settings == prompt_with().commands.settings


def test_save(prompt_with: Callable[..., InteractivePrompt], tmp_path: Path) -> None:
    """JSONL that can be read as prompts again, or text; never in place of a file, and a mistake is one line."""
    prompt = prompt_with()
    written = [next(prompt.write(text, chat=False)) for text in ("one\ntwo", "é")]
    save = prompt.commands.run
    assert save(f"/save {tmp_path}/a b.jsonl").startswith("2 prompts")
    assert read_prompts(tmp_path / "a b.jsonl") == [Prompt("one\ntwo", line=1), Prompt("é", line=2)]
    lines = [json.loads(line) for line in (tmp_path / "a b.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["completion"] for line in lines] == [exchange.text for exchange in written]
    assert {line["new_tokens"] for line in lines} == {8}
    (tmp_path / "b.txt").write_text("mine")
    assert "is there already" in save(f"/save {tmp_path}/b.txt")
    assert (tmp_path / "b.txt").read_text() == "mine"
    assert "cannot be written" in save(f"/save {tmp_path}/none/b.txt")
    assert "should end in .jsonl or .txt" in save(f"/save {tmp_path}/b.py")
    save(f"/save {tmp_path}/c.txt")
    assert (tmp_path / "c.txt").read_bytes().decode().startswith("one\ntwo" + written[0].text), (
        "also a line break alone"
    )


def test_n_texts_of_a_prompt(prompt_with: Callable[..., InteractivePrompt], capsys: Any) -> None:
    """Sample j has ``seed + j``, as everywhere."""
    prompt = prompt_with(n=2, seed=3, logprobs=True)
    first, second = prompt.write("ab", chat=False)
    settings = GenerationConfig(temperature=0.9, max_new_tokens=8, stop_at_eos=False, n=2, seed=3)
    completions = prompt.language_model.complete(["ab"], settings)[0]
    assert [first.text, second.text] == [one.text for one in completions]
    assert capsys.readouterr().out == f"{first.text}\n{second.text}\n"
    assert re.fullmatch(
        r"\[8 tokens, .* tokens/s, first .* s, mean log-probability -.*; max_new_\S+ .*\]", first.figures
    )


def test_following_ids_is_streaming_a_text(prompt_with: Callable[..., InteractivePrompt]) -> None:
    """The same pieces, and an account at the end."""
    language_model = prompt_with().language_model
    settings = GenerationConfig(greedy=True, max_new_tokens=8, n=3)
    *pieces, completion = language_model.follow(language_model.tokenizer.encode("ab"), settings)
    assert isinstance(completion, Completion)
    assert "".join(piece.text for piece in pieces) == completion.text == language_model.generate("ab", settings)


def test_a_conversation_is_written_as_transformers_writes_it(tmp_path: Path) -> None:
    """Special tokens of the template become their ids; those of plain text stay text."""
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizer_with(TEMPLATE)
    save_huggingface(tokenizer, tmp_path, 400)
    talk = Conversation(tokenizer, GenerationConfig())
    talk.system = "Be <kind> & 'é'."
    talk.keep("a", "b")
    messages = [{"role": "system", "content": talk.system}, *talk.messages, {"role": "user", "content": " c\n"}]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    ids = talk.ask(" c\n", longest=400)
    assert ids == expected
    assert ids.count(EOS) == 4
    assert ids[0] == tokenizer.pad_id  # its bos_token
    assert EOS not in tokenizer.encode("<|endoftext|>")  # as ever, after a template was encoded
    byte = ByteTokenizer()
    assert byte.encode_parts(["a", "<|endoftext|>", ""]).ids == [ord("a"), EOS]


def test_chat(prompt_with: Callable[..., InteractivePrompt], capsys: Any) -> None:
    """Answers become part of the conversation, `/raw` leaves it alone, `/reset` forgets it."""
    prompt = prompt_with(TEMPLATE)
    commands, talk = prompt.commands, prompt.commands.conversation
    assert talk is not None
    assert commands.chatting
    assert "not this" in commands.run("/system no")
    assert talk.system is None
    assert commands.run("/system") == "ahead of the conversation the model is told nothing"
    assert "an empty text" in commands.run('/system ""')
    assert talk.system == ""
    assert "system: an empty text" in commands.run("/show")
    commands.run("/system Be kind,\n  and brief.")
    (first,) = prompt.write("hello", chat=True)
    assert (first.chat, first.system) == (True, "Be kind,\n  and brief.")
    assert talk.messages == [{"role": "user", "content": "hello"}, {"role": "assistant", "content": first.text}]
    assert (
        first.prompt_tokens == len(tokenizer_with(None).encode(f'<system>"{talk.system}"<user>"hello"<assistant>')) + 6
    )
    list(prompt.write("on its own", chat=False))
    assert len(talk.messages) == 2
    assert "goes on with what you type" in commands.run("/raw")
    assert not commands.chatting
    assert "  conversation: 2 messages" in commands.run("/show")
    for _ in range(8):
        list(prompt.write("x" * 40, chat=True))
    assert "(the oldest 2 messages are forgotten: the model takes 400 tokens)" in capsys.readouterr().err
    assert talk.messages[0]["role"] == "user"
    with pytest.raises(ValueError, match="the prompt has"):
        list(prompt.write("x" * 400, chat=True))
    commands.run("/reset")
    assert (talk.messages, talk.system, commands.chatting) == ([], None, True)
    assert "reads no 'mod'; did you mean 'mood'" in commands.run("/set template_args {mod: 1}")
    before = talk.ask("a")
    assert commands.run("/set template_args {mood: '!'}") == '  template_args = {mood: "!"} (at the start null)'
    assert len(talk.ask("a")) == len(before) + 1
    commands.run("/reset")
    assert talk.ask("a") == before
    told = prompt_with(TEMPLATE, system="Be kind.").commands
    told.run("/system")
    told.run("/reset")
    assert "system: Be kind." in told.run("/show")


def test_a_terminal_is_not_given_control_characters() -> None:
    """A model of bytes can write what retitles a window or turns letters into line drawings."""
    assert visible("é\ta\n\x1b]0;x\x07\x0e\x9b") == "é\ta\n␛]0;x␇␎\ufffd"


def _sit_down() -> None:
    """In the new process: the terminal is its own, and Ctrl-C means what it does where tests run in the background."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command at a terminal of its own, as a user sits at one."""

    def __init__(self, *command: str | Path, home: Path, cache: Path) -> None:
        self.fd, slave = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_sit_down,
            env={
                **os.environ,
                "HOME": str(home),
                "SLM_CACHE_DIR": str(cache),
                "TERM": "xterm",
                "PROMPT_TOOLKIT_NO_CPR": "1",
            },
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


def test_a_session(tmp_path: Path, cache_dir: Path) -> None:
    """All at a terminal: several lines by backslash, Alt-Enter and pasting; a text that would run for minutes stopped
    by Ctrl-C; mistakes of all kinds, after which the session goes on; recall of an earlier session's line."""
    config = config_of(100_000)
    weights = build_model(config).state_dict()
    write_bundle(tmp_path / "bundle", config, weights, tokenizer_with(TEMPLATE), {})
    history = tmp_path / ".cache" / "slm" / "prompt_history"
    history.parent.mkdir(parents=True)
    history.write_text("\n# earlier\n+/set top_k 9\n")
    terminal = Terminal(
        Path(sys.executable).with_name("slm-generate"),
        f"model_dir={tmp_path / 'bundle'}",
        "generation.max_new_tokens=90000",
        "generation.stop_at_eos=false",
        home=tmp_path,
        cache=cache_dir,
    )

    def enter(keys: str, answer: str) -> None:
        terminal.type(keys)
        terminal.expect(answer + ".*" + READY)

    try:
        terminal.expect("/exit to leave.*" + READY)
        enter("\x1b[A\r", "  top_k = 9")  # arrow up
        terminal.type("hello\r")
        terminal.expect(".{5000}")  # far more than the prompt's own redrawing
        terminal.type("\x03")
        terminal.expect(r"\d tokens/s, first after .*; stopped\].*" + READY, seconds=10)
        enter("/set max_new_tokens 3\r", r"  max_new_tokens = 3")
        enter("one\\\rtwo\r", r"\[3 tokens")
        enter("/raw\r", "raw: ")
        enter("one\x1b\rtwo\r", r"\[3 tokens")
        enter("\x1b[200~def a():\n    pass\n\tb\x1b[201~\r", r"\[3 tokens")
        enter("//usr\r", r"\[3 tokens")
        enter("/raw\r", "chat mode")
        enter("break\r", "ZeroDivisionError")
        enter("/svae x\r", "did you mean 'save'")
        enter("half a line\x03", "")
        enter(f"/save {tmp_path / 'all.jsonl'}\r", "5 prompts")
        terminal.type("\x04")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.process.kill()
        os.close(terminal.fd)
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["prompt"] for line in lines] == ["hello", "one\ntwo", "one\ntwo", "def a():\n    pass\n\tb", "/usr"]
    assert [line["finish_reason"] for line in lines] == ["interrupted", *["length"] * 4]
    assert [line.get("chat") for line in lines] == [True, True, None, None, None]
    assert "+one\n+two\n" in history.read_text()


def test_without_a_terminal_lines_are_prompts(tiny_run: Path, run_cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``echo text | slm-generate run=…`` writes continuations alone."""
    import io

    import slm

    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat\na dog\n"))
    outcome = run_cli("generate", f"run={tiny_run}", "generation=greedy", "generation.max_new_tokens=4")
    expected = [slm.load(tiny_run).generate(text, greedy=True, max_new_tokens=4) for text in ("the cat", "a dog")]
    assert outcome.out == "".join(f"{text}\n" for text in expected)
