"""A user's mistake: one clear line that names the mend, status 2, nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import slm

MISTAKES = [
    # names
    ("modle=base", "unknown key 'modle'; did you mean 'model'?"),
    ("trainer.max_step=3", "unknown key 'trainer.max_step'; did you mean 'trainer.max_steps'?"),
    ("max_steps=3", "did you mean 'trainer.max_steps'?"),
    ("lr=1", "did you mean 'optimizer.lr'?"),
    ("model.modules.transformer.dims=64", "did you mean 'model.modules.transformer.dim'?"),
    ("+optimizer.beta=[0.9,0.95]", "did you mean 'betas'?"),
    ("model=gpt2_medum", "did you mean 'gpt2_medium'? (choices: base, gpt2_base,"),
    ("tokenizer=bytes", "did you mean 'byte'?"),
    ("logger=tensorbord", "did you mean 'tensorboard'?"),
    ("model.name=gtp", "did you mean 'gpt'?"),
    ("model.modules.transformer.activation=gleu", "did you mean 'gelu'?"),
    ("scheduler.name=cosin", "did you mean 'cosine'?"),
    ("data.kind=txt", "did you mean 'text'?"),
    ("trainer.precision=bf61", "did you mean 'bf16'?"),
    ("trainer.profiler=simpl", "trainer.profiler should be 'simple', 'advanced', 'pytorch' or 'xla'; got 'simpl'"),
    ("trainer.accumulate_grad_batches=4", "follows from other settings here; set trainer.global_batch_size"),
    # values
    ("trainer.max_steps=0", "trainer.max_steps should be greater than 0; got 0"),
    ("trainer.max_steps=1.5", "trainer.max_steps should be a valid integer; got 1.5"),
    ("trainer.limit_val_batches=1.5", "a whole number or a fraction up to 1; got 1.5"),
    ("trainer.devices=0", "trainer: `Trainer(devices=0)` value is not a valid input"),
    ("trainer.accelerator=gpuu", "invalid accelerator name"),
    ("trainer.global_batch_size=6", "must be a multiple of batch_size x devices (4 x 1 = 4); set it to 8"),
    ("optimizer.lr=fast", "optimizer.lr should be a valid number; got 'fast'"),
    ("optimizer.betas=[0.9,2]", "optimizer.betas.1 should be less than 1; got 2"),
    ("optimizer._target_=torch.optim.Adamm", "optimizer: torch.optim.Adamm cannot be made"),
    ("generation.top_p=0", "top_p must be above 0"),
    ("seed=x", "seed should be a valid integer; got 'x'"),
    ("plugins=mine", "plugins must be a list of modules, e.g. plugins=[my_package.models]; got 'mine'"),
    ("plugins=[no_such_module]", "cannot import 'no_such_module'"),
    ("+callbacks.x._target_=no.such", "callbacks.x: no.such cannot be made"),
    ("+callbacks.x.y=1", "callbacks.x._target_ is missing"),
    # things that must fit each other
    ("model.modules.transformer.n_heads=5", "dim (32) must be a multiple of n_heads (5)"),
    ("data.seq_len=64", "data.seq_len (64) must be at most model.params.max_seq_len (16)"),
    ("model.modules.transformer.n_kv_heads=3", "n_heads (2) must be a multiple of n_kv_heads (3)"),
    ("model.modules.position_embedding.rotary.base=5", "is read only where kind=rotary; kind is learned"),
    ("+model.modules.position_embedding.rotary.scaling={kind:yarn,factor:2}", "needs original_max_seq_len"),
    ("model.grow_vocab=mean", "model.grow_vocab is read only with model.weights"),
    ("tokenizer=pretrained", "tokenizer=pretrained is the one of model.weights"),
    # files
    ("data.path=missing.txt", "there is no file or folder 'missing.txt'"),
    ("data.path=binary", "'binary' is binary, not text"),
    ("data.path=empty_folder", "the folder 'empty_folder' holds no file that matches"),
    ("data.path=empty_file", "there is no text in 'empty_file'"),
    ("data.path=[words.txt,missing.txt]", "there is no file or folder 'missing.txt'"),
    ("resume=missing", "'missing' does not exist"),
    ("run_dir=binary", "cannot make the run folder 'binary' (File exists)"),
    # grammar
    ("seed", "cannot read 'seed': a setting is key=value"),
    ("--seed=3", "unrecognized arguments: --seed=3; settings are typed without dashes"),
    ("--config-dir=missing", "Additional config directory"),
    ("model=null", "a group takes the name of one of its choices"),
    ("trainer={max_step:1}", "unknown key 'trainer.max_step'; did you mean 'trainer.max_steps'?"),
    ("model=3", "a group takes the name of one of its choices"),
    ("logger=[csv,3]", "a group takes the name of one of its choices"),
    ("seed=1,2", "add --multirun"),
]


@pytest.fixture
def files(tmp_path: Path) -> set[str]:
    """Bad inputs in `tmp_path`; their names."""
    (tmp_path / "binary").write_bytes(b"\x00\xff\x00")
    (tmp_path / "empty_file").touch()
    (tmp_path / "empty_folder").mkdir()
    (tmp_path / "words.txt").write_text("words " * 100)
    return {entry.name for entry in tmp_path.iterdir()}


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=[mistake for mistake, _ in MISTAKES])
def test_one_line_and_nothing_left(
    run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, files: set[str], mistake: str, message: str
) -> None:
    """An exception other than the message would end the test: it is what a user sees as a traceback."""
    outcome = run_cli("train", *tiny, mistake)
    assert outcome.status == 2
    assert message in outcome.err
    assert outcome.out == ""
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("slm-train: ")
    assert {entry.name for entry in tmp_path.iterdir()} == files


@pytest.mark.parametrize(
    ("command", "typed", "said"),
    [
        ("train", ["early_stopping=true"], "no run stops early; the best model is kept"),
        ("train", ["patience=3"], "no run stops early"),
        ("train", ["serve=true"], "there is no server here; slm-generate with no prompt talks"),
        ("train", ["fp16=true"], "did you mean 'trainer.precision=16'?"),
        ("train", ["wandb=true"], "did you mean 'logger=wandb'?"),
        ("train", ["port=8000"], "there is no server here"),
        ("train", ["--estimate"], "trainer=debug"),
        ("train", ["--resume"], "did you mean 'resume=auto'?"),
        ("train", ["data.path=notes"], "did you mean 'data=text data.path=notes'?"),
        ("train", ["data.path=a/ids.bin"], "did you mean 'data=tokens data.path=a/ids.bin'?"),
        ("train", ["data=notes"], "did you mean 'data=text data.path=notes'?"),
        ("train", ["data=notes.jsonl"], "did you mean 'data=jsonl data.path=notes.jsonl'?"),
        ("train", ["--config", "my.yaml"], "--config-dir=FOLDER experiment=NAME"),
        ("train", ["task=blimp"], "tasks=[minimal_pairs] minimal_pairs.path=…"),
        ("train", ["task=hellaswag"], "tasks=[NAME] asks lm-eval's tasks"),
        ("train", ["epochs=3"], "did you mean 'trainer.max_epochs'?"),
        ("train", ["help"], "did you mean '--help'?"),
        ("train", ["optimizer.lr", "1e-3"], "did you mean 'optimizer.lr=1e-3'?"),
        ("generate", ["outputs/first"], "did you mean 'run=outputs/first'?"),
        ("generate", ["run=x", "prompt=The", "model"], "a text with spaces is typed in quotes: 'prompt=The model …'"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_words_of_a_newcomer(run_cli: Any, tmp_path: Path, command: str, typed: list[str], said: str) -> None:
    """They got a wrong hint or none, and complaints about what the hint itself had put there."""
    (tmp_path / "notes").mkdir()
    outcome = run_cli(command, *typed)
    assert outcome.status == 2
    assert said in outcome.err.splitlines()[0]
    assert len(outcome.err.splitlines()) == (2 if typed[-1] == "1e-3" else 1), outcome.err


def test_a_sweeper_that_is_not_installed_names_its_extra(run_cli: Any) -> None:
    for group, choice in (("launcher", "submitit_other"), ("launcher", "joblib_other")):
        outcome = run_cli("train", "-m", f"hydra/{group}={choice}", "seed=1,2")
        assert outcome.status == 2
        package = f"hydra-{choice.partition('_')[0]}-{group}"
        assert f"needs the package '{package}': pip install 'slm[sweep]'" in outcome.err
    outcome = run_cli("train", "-m", "hydra/sweeper=optuna", "seed=1,2")
    assert outcome.status == 2
    assert "slm's own sweeper uses Optuna 5: sweep=tpe" in outcome.err


def test_all_at_once(run_cli: Any, tiny: tuple[str, ...]) -> None:
    """Five mistakes in five places are five lines, not five attempts."""
    outcome = run_cli(
        "train", *tiny, "trainer.max_steps=0", "optimizer.lr=-1", "model.modules.transformer.n_heads=5",
        "generation.temperature=0", "data.val_fraction=2", "trainer.detect_anomaly=1", "seed=x",
    )  # fmt: skip
    assert outcome.status == 2
    named = {line.split()[1].rstrip(":") for line in outcome.err.splitlines()}
    assert named == {
        "trainer.max_steps", "optimizer.lr", "model.modules.transformer", "generation.temperature",
        "data.val_fraction", "trainer.detect_anomaly", "seed",
    }  # fmt: skip


def test_mistakes_are_found_before_hydra_composes(run_cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a command line without any is not composed to know that: the files it is made of say it."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("Hydra was to be asked later, or not at all")

    monkeypatch.setattr("slm.cli.composition.Composition.composed", refuse)
    assert run_cli("train", "optimizer=sgd", "optimizer.momentum=0.5", "--cfg", "job").status == 0
    monkeypatch.undo()
    monkeypatch.setattr("hydra.main", refuse)
    outcome = run_cli("train", "optimizer=adamw", "optimizer.momentum=0.5", "-m", "seed=1,2")
    assert (outcome.status, "unknown key 'optimizer.momentum'" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    "typed",
    [
        ["+callbacks.mine={_target_: a.b, c: 1}", "callbacks.mine.c=2"],
        ["data=mixture", "+data@data.parts.a=text", "data.parts.a.path=x", "+data.parts.a.weight=3"],
        ["optimizer.betas.0=0.8", "~generation.stop", "++trainer.max_steps=3", "logger=[csv,tensorboard]"],
        ["hydra.job.name=x", "hydra/launcher=basic", "+generation.logit_bias.50=-2.5", "trainer={max_steps: 3}"],
    ],
)
def test_what_hydra_takes_is_no_mistake(run_cli: Any, typed: list[str]) -> None:
    outcome = run_cli("train", *typed, "--cfg", "job")
    assert outcome.status == 0, outcome.err


def test_of_hydra_only_what_is_public_is_used() -> None:
    """Its `_internal` may change with any version."""
    for file in Path(slm.__file__).parent.rglob("*.py"):
        assert "_internal" not in file.read_text(encoding="utf-8"), file


def test_an_absolute_run_dir_is_taken_back_too(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Hydra makes the folder ahead of us; outside the working folder it once stayed behind, empty."""
    elsewhere = tmp_path.parent / f"{tmp_path.name}_elsewhere"
    assert run_cli("train", *tiny, f"run_dir={elsewhere}", "trainer.max_steps=0").status == 2
    assert not elsewhere.exists()


def test_a_bug_of_ours_keeps_its_traceback(run_cli: Any, tiny: tuple[str, ...], monkeypatch: Any) -> None:
    """Only users' mistakes are made short: an error nobody foresaw must not be hidden."""

    monkeypatch.setattr("slm.data.batches.mixture.find_data", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_cli("train", *tiny)


def test_what_a_search_path_brings_is_no_mistake(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """A check that fails afterwards is told by itself: only Hydra knows the choices that are found there."""
    (tmp_path / "more" / "recipe").mkdir(parents=True)
    (tmp_path / "more" / "recipe" / "mine.yaml").write_text("# @package _global_\nseed: 3\n")
    found = f"hydra.searchpath=[file://{tmp_path / 'more'}]"
    outcome = run_cli("train", *tiny, found, "recipe=mine", "trainer.max_steps=0")
    assert (outcome.status, outcome.err) == (2, "slm-train: trainer.max_steps should be greater than 0; got 0\n")
