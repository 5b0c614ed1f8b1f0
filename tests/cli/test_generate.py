"""slm-generate: a prompt, a file of prompts."""

from __future__ import annotations

import io
import json
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

import slm
from slm.errors import UserError
from slm.generation.config import GenerationConfig
from slm.training.predict import answer_prompts

GREEDY = ("generation=greedy", "generation.max_new_tokens=5")


def continuation(run: Path, prompt: str) -> str:
    return slm.load(run).generate(prompt, greedy=True, max_new_tokens=5)


@pytest.mark.parametrize(
    "prompt", ["the cat", "", "null", "a=b,c", "'${x},[{\"\\", " it's: ", "\\n\n#~", "[1,2]", "ü€"], ids=repr
)
def test_only_the_continuation_goes_to_stdout(run_cli: Any, tiny_run: Path, prompt: str) -> None:
    """So that it can be piped; and the prompt reaches the model as it was typed."""
    outcome = run_cli("generate", f"run={tiny_run}", f"prompt={prompt}", *GREEDY)
    assert outcome.status == 0, outcome.err
    assert outcome.out == continuation(tiny_run, prompt)
    assert outcome.err == ""


def test_a_seed_repeats(run_cli: Any, tiny_run: Path) -> None:
    command = ("generate", f"model_dir={tiny_run / 'model'}", "prompt=the", "generation.max_new_tokens=12")
    one, same, other = (run_cli(*command, f"generation.seed={seed}").out for seed in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize("name", ["prompts.txt", "prompts.jsonl"])
def test_a_file_of_prompts(run_cli: Any, tiny_run: Path, tmp_path: Path, name: str) -> None:
    """A line of JSON each, in the file's order, over more than one batch; blank lines are no prompts."""
    prompts = [f"{word} «{i}»" for i, word in enumerate(["the", "cat", "sat", "on"] * 3)]
    lines = [json.dumps({"prompt": p, "id": 1}) if name.endswith("jsonl") else p for p in prompts]
    (tmp_path / name).write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    outcome = run_cli("generate", f"run={tiny_run}", f"prompts={name}", *GREEDY)
    assert outcome.status == 0, outcome.err
    answers = [json.loads(line) for line in outcome.out.splitlines()]
    assert [(a["prompt"], a["completion"]) for a in answers] == [(p, continuation(tiny_run, p)) for p in prompts]
    for answer, prompt in zip(answers, prompts, strict=True):
        assert (answer["prompt_tokens"], answer["new_tokens"]) == (len(prompt.encode()), 5)
        assert answer["finish_reason"] == "length"
        assert answer["seconds_to_first_token"] >= 0
        assert answer["tokens_per_second"] >= 0


def test_prompts_with_budgets_and_seeds_of_their_own(run_cli: Any, tiny_run: Path, tmp_path: Path) -> None:
    """Each is answered as if it had been asked alone, with its own settings."""
    asked: list[dict[str, Any]] = [
        {"prompt": "the", "max_new_tokens": 3, "seed": 7},
        {"prompt": "the", "seed": 8},
        {"prompt": "cat", "max_new_tokens": None},
        {"prompt": "the", "max_new_tokens": 9},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    outcome = run_cli(
        "generate", f"run={tiny_run}", "prompts=p.jsonl", "generation.max_new_tokens=5", "generation.seed=3"
    )
    assert outcome.status == 0, outcome.err
    model = slm.load(tiny_run)
    for one, line in zip(asked, outcome.out.splitlines(), strict=True):
        budget, seed = one.get("max_new_tokens") or 5, one.get("seed", 3)
        alone = model.generate(one["prompt"], max_new_tokens=budget, seed=seed, temperature=0.8, top_k=50)
        answer = json.loads(line)
        assert (answer["completion"], answer["new_tokens"]) == (alone, budget)


def test_an_interrupted_file_is_gone_on_with(run_cli: Any, tiny_run: Path, tmp_path: Path) -> None:
    """The answers are those of an unbroken run; a line that was cut off is written anew, and none twice."""
    prompts = [f"the {i}" for i in range(6)]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    command = ("generate", f"run={tiny_run}", "prompts=prompts.txt", "generation.max_new_tokens=5", "generation.seed=3")
    assert run_cli(*command, "out=whole.jsonl").status == 0
    whole = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text("".join(whole[:2]) + whole[2][:17])
    outcome = run_cli(*command, "out=cut.jsonl")
    assert (outcome.status, outcome.out) == (0, ""), outcome.err
    assert "2 of 6 prompts are answered in 'cut.jsonl' already" in outcome.err
    cut, whole = ((tmp_path / name).read_text().splitlines() for name in ("cut.jsonl", "whole.jsonl"))
    assert [json.loads(line)["completion"] for line in cut] == [json.loads(line)["completion"] for line in whole]
    assert run_cli(*command, "out=cut.jsonl").status == 0
    assert len((tmp_path / "cut.jsonl").read_text().splitlines()) == 6
    (tmp_path / "prompts.txt").write_text("\n".join(["another", *prompts]))
    outcome = run_cli(*command, "out=cut.jsonl")
    assert outcome.status == 2
    assert "line 1 of 'cut.jsonl' is no answer to prompt 1" in outcome.err


@pytest.mark.parametrize("n", [1, 2])
def test_a_prompt_too_long_is_a_record_among_the_answers(run_cli: Any, tiny_run: Path, tmp_path: Path, n: int) -> None:
    """One of 40 tokens, for a model that takes 16, refused the whole file and did not say where it stood."""
    lines = ["the", "", "a" * 40, "cat", "b" * 16, "c" * 15]
    (tmp_path / "prompts.txt").write_text("\n".join(lines))
    command = ("generate", f"run={tiny_run}", "prompts=prompts.txt", f"generation.n={n}", "out=out.jsonl", *GREEDY)
    outcome = run_cli(*command)
    assert outcome.status == 0, outcome.err
    assert "2 of 5 prompts were refused (line 3, 5): their answers say why" in outcome.err
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [answer["prompt"] for answer in answers] == [line for line in lines if line]
    for answer, number, tokens in ((answers[1], 3, 40), (answers[3], 5, 16)):
        assert (answer["finish_reason"], answer["line"], "completion" in answer) == ("refused", number, False)
        assert f"the prompt has {tokens} tokens; this model takes 16" in answer["error"]
    for answer in (answers[0], answers[2], answers[4]):
        first = answer if n == 1 else answer["completions"][0]
        assert first["completion"] == continuation(tiny_run, answer["prompt"])
    assert "5 of 5 prompts are answered" in run_cli(*command).err
    with pytest.raises(UserError, match="prompt 2 of 3: the prompt has 40 tokens"):
        slm.load(tiny_run).complete(["the", "a" * 40, "cat"])


def test_a_file_that_holds_something_else_is_left_alone(run_cli: Any, tiny_run: Path, tmp_path: Path) -> None:
    """One line without a line's end was taken for an answer that was cut off, and the file emptied."""
    (tmp_path / "prompts.txt").write_text("the\n")
    (tmp_path / "precious.json").write_text('{"my": "data"}')
    outcome = run_cli("generate", f"run={tiny_run}", "prompts=prompts.txt", "out=precious.json", *GREEDY)
    assert outcome.status == 2
    assert "line 1 of 'precious.json' is no answer to prompt 1" in outcome.err
    assert (tmp_path / "precious.json").read_text() == '{"my": "data"}'


def test_line_ends_of_other_systems(run_cli: Any, tiny_run: Path, tmp_path: Path) -> None:
    """U+2028 and U+0085 ended a line when answers were counted, and a byte-order mark was part of the first prompt."""
    (tmp_path / "prompts.txt").write_bytes("\ufeffa\u2028b\u0085c\r\nthe\r\n".encode())
    command = ("generate", f"run={tiny_run}", "prompts=prompts.txt", "out=out.jsonl", *GREEDY)
    assert run_cli(*command).status == 0
    answers = (tmp_path / "out.jsonl").read_bytes()
    assert [json.loads(line)["prompt"] for line in answers.splitlines()] == ["a\u2028b\u0085c", "the"]
    (tmp_path / "out.jsonl").write_bytes(b"\xef\xbb\xbf" + answers.replace(b"\n", b"\r\n"))
    assert "2 of 2 prompts are answered" in run_cli(*command).err


def test_what_is_written_when_interrupted_stays_whole(tiny_run: Path) -> None:
    class Keyboard(io.StringIO):
        def flush(self) -> None:
            if self.getvalue().count("\n") == 2:
                raise KeyboardInterrupt

    out, signals = Keyboard(), signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
            answer_prompts(slm.load(tiny_run, device="cpu"), ["a", "b", "c"], GenerationConfig(max_new_tokens=2), out)
    finally:
        signal.signal(signal.SIGINT, signals)  # Lightning ignores further ones
    assert [json.loads(line)["prompt"] for line in out.getvalue().splitlines()] == ["a", "b"]


def test_several_of_a_prompt_and_stop_strings(run_cli: Any, tiny_run: Path) -> None:
    command = ("generate", f"run={tiny_run}", "prompt=the", "generation.max_new_tokens=9", "generation.seed=3")
    outcome = run_cli(*command, "generation.n=3")
    assert outcome.status == 0, outcome.err
    texts = [json.loads(line)["completion"] for line in outcome.out.splitlines()]
    assert len(texts) == 3
    assert texts[0] == run_cli(*command).out
    stopped = run_cli(*command, f'generation.stop=["{texts[0][3]}"]').out
    assert stopped == texts[0][: texts[0].index(texts[0][3])]


def test_the_readme_s_stop_string_stops(run_cli: Any, tiny_run: Path) -> None:
    """Its "\\n" was a backslash and an n. The model is made to write line ends alone, so nothing is left."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    line = next(line for line in readme.splitlines() if line.startswith("slm-generate") and "generation.stop=" in line)
    words = [word for word in shlex.split(line, comments=True)[1:] if not word.startswith("run=")]
    command = (f"run={tiny_run}", "generation.max_new_tokens=3", "+generation.logit_bias.10=1e9")
    plain = run_cli("generate", *command, *(word for word in words if "stop" not in word))
    assert (plain.out, plain.err) == ("\n\n\n", "")
    stopped = run_cli("generate", *command, *words)
    assert (stopped.status, stopped.out) == (0, ""), stopped.err
    told = run_cli("generate", *command, "prompt=a", r"generation.stop=[\n]")
    assert "the shell took" in told.err


MISTAKES = [
    ((), "no model was named; give run=PATH (a run folder) or model_dir=PATH|NAME"),
    (("run=missing",), "there is no folder 'missing'"),
    (("run=empty",), "'empty' is neither a run folder nor a model bundle"),
    (("model_dir=damaged", "prompt=a"), "damaged/model.safetensors is damaged"),
    (("run=RUN", "model_dir=RUN"), "run and model_dir were both given"),
    (("run=RUN", "prompt=a", "prompts=good.txt"), "prompt and prompts were both given"),
    (("run=RUN", "prompts=missing.txt"), "there is no file 'missing.txt'"),
    (("run=RUN", "prompts=blank.txt"), "'blank.txt' holds no prompt"),
    (("run=RUN", "prompts=binary"), "cannot read 'binary' as text"),
    (("run=RUN", "prompts=good.txt", "out=no/x.jsonl"), "out: cannot write 'no/x.jsonl' (No such file"),
    (("run=RUN", "prompts=good.txt", "out=empty"), "out: cannot write 'empty' (Is a directory)"),
    (("run=RUN", "prompts=half.jsonl"), "line 3 of 'half.jsonl' has no prompt"),
    (("run=RUN", "prompts=bad.jsonl"), """line 2 of 'bad.jsonl' has no prompt; expected {"prompt": "…"}"""),
    (("run=RUN", "prompts=budget.jsonl"), "line 2 of 'budget.jsonl': max_new_tokens should be greater than"),
    (("run=RUN", "prompt=" + "a" * 40), "the prompt has 40 tokens; this model takes 16, one of them new"),
    (("run=RUN", "prompts=long.txt"), "the prompt has 40 tokens"),
    (("run=RUN", "prompt=a", "temperature=1"), "did you mean 'generation.temperature'?"),
    (("run=RUN", "prompt=a", "generation.top_k=-1"), "generation.top_k should be greater than or equal to 0"),
    (("run=RUN", "prompt=a", "device=gpu"), "did you mean 'device=cuda'?"),
    (("run=RUN", "prompt=a", "dtype=int8"), "dtype should be 'auto', 'float32', 'bfloat16' or 'float16'; got 'int8'"),
    (("run=RUN", "prompt=a", "generation.temperature=-1"), "generation.temperature should be greater than 0"),
    (("run=RUN", "prompt=a", "generation.top_p=0"), "top_p must be above 0"),
    (("run=RUN", "prompt=a", 'generation.stop=[""]'), "stop holds an empty string"),
    (("run=RUN", "prompt=a", "generation.overflow=slide"), "overflow=slide needs rotary positions"),
    (("run=RUN", "prompt=a", "generation.quantize=int2"), "generation.quantize should be 'int8' or 'int4'"),
    (("run=RUN", "prompt=a", "out=x.jsonl"), "out is where the answers to prompts=FILE go"),
    (("rn=RUN", "prompt=a"), "did you mean 'run'?"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a)[:50] for a, _ in MISTAKES])
def test_mistakes(run_cli: Any, tiny_run: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    for name, content in {
        "good.txt": b"a", "blank.txt": b"\n \n", "binary": b"\xff\xfe", "long.txt": b"a" * 40,
        "half.jsonl": b'{"prompt": "a"}\n\n{"prompt": "\\ud800"}\n',
        "budget.jsonl": b'{"prompt": "a"}\n{"prompt": "a", "max_new_tokens": 0}\n',
        "bad.jsonl": b'{"prompt": "a"}\n{"text": "b"}\n',
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    for file in (tiny_run / "model").iterdir():
        (tmp_path / "damaged" / file.name).write_bytes(
            file.read_bytes()[: 200 if file.suffix == ".safetensors" else None]
        )
    outcome = run_cli("generate", *(argument.replace("RUN", str(tiny_run)) for argument in arguments))
    assert outcome.status == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert outcome.out == ""
