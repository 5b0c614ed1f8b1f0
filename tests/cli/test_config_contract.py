"""Every YAML composes and is read to the last leaf; a user's own choices stand beside ours."""

from __future__ import annotations

import builtins
import inspect
import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import pytorch_lightning as pl
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import slm
from slm.cli.composition import VERSION_BASE
from slm.cli.help import choices
from slm.errors import UserError
from slm.generation.config import GenerationConfig
from slm.models.config import ModelConfig
from slm.study.sweep.config import SweepConfig, sweep_config
from slm.suggest.nearest import derived
from slm.training.config import LIGHTNING, SchedulerConfig, TrainerConfig
from slm.training.run_config import RunConfig
from slm.weights.fine_tuning import FineTuning, Lora

CONF = Path(str(files("slm.conf")))
GROUPS = sorted(entry.name for entry in CONF.iterdir() if entry.is_dir() and not entry.name.startswith("_"))
CHOICES = [
    (group, choice)
    for group in GROUPS
    for choice in choices(group)
    if group != "hydra"
    and choice not in ("pretrained", "lora")  # they need weights: tests/training/test_fine_tuning.py, …
]
OWN = {field.name for field in fields(TrainerConfig)} - {"lightning"}


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_module("slm.conf", **VERSION_BASE):
        yield


def composed(*overrides: str, config: str = "train") -> dict[str, Any]:
    """Without what sweeps it, which a run does not have."""
    values: Any = OmegaConf.to_container(compose(config, overrides=[*overrides]), resolve=True, throw_on_missing=True)
    return {key: value for key, value in values.items() if key != "sweep"}


@pytest.mark.parametrize("choice", choices("sweep"))
def test_every_sweep_composes_and_is_valid(choice: str) -> None:
    values: Any = OmegaConf.to_container(compose("train", overrides=[f"sweep={choice}"]), resolve=True)
    assert sweep_config(values["sweep"]).kind == choice
    with pytest.raises(UserError, match=r"unknown key 'sweep\.surplus'"):
        sweep_config({**values["sweep"], "surplus": 1})


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_is_valid(group: str, choice: str) -> None:
    wants_path = {
        "text",
        "tokens",
        "babylm",
        "babylm_strict",
        "babylm_strict_small",
        "code",
        "jsonl",
        "parquet",
        "datasets",
        "prepared",
        "instructions",
        "sft",
        "sft_toy",
        "pairs",
        "dpo",
        "unpaired",
        "kto",
    }
    needed = ["data.path=x"] if choice in wants_path or (group, choice) == ("data", "csv") else []
    if (group, choice) == ("data", "instructions"):
        needed.append("task=sft")
    if (group, choice) == ("data", "pairs"):
        needed.append("task=dpo")
    if (group, choice) == ("data", "unpaired"):
        needed.append("task=kto")
    if choice in ("saved", "characters"):
        needed = ["tokenizer.path=x"]
    if choice == "mixture":
        needed = [f"+data@data.parts.{name}=python_stdlib" for name in ("a", "b")]
    config = RunConfig.from_dict(composed(f"{group}={choice}", *needed))
    assert config.run_dir.parts[0] == "outputs"


def test_to_make_a_configuration_reads_no_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Weights were opened by it, or downloaded, and the run that is gone on with was looked for."""
    values = {**composed("experiment=speedrun_shakespeare_cpu"), "resume": "auto", "run_dir": str(tmp_path)}
    config = RunConfig.from_dict(values)  # modules are imported by now

    opened = io.open

    def refuse(file: Any, *rest: Any, **named: Any) -> Any:
        assert str(file).endswith(".py"), f"{file} was looked at"  # code of a _target_ is read in place of imported
        return opened(file, *rest, **named)

    with monkeypatch.context() as patched:
        for module, name in ((io, "open"), (builtins, "open"), (os, "stat"), (os, "scandir"), (os, "listdir")):
            patched.setattr(module, name, refuse)
        again = RunConfig.from_dict(values, template_time=config.template_time)
        with pytest.raises(UserError, match="are not opened"):
            RunConfig.from_dict({**values, "model": {"weights": "nowhere"}})
    assert again == config


COMMANDS = (
    "train", "generate", "evaluate", "prepare", "convert", "crawl", "reproduce", "plan", "runs", "compare", "report",
    "push", "serve",
)  # fmt: skip


@pytest.mark.parametrize("config", COMMANDS)
def test_every_command_composes(config: str) -> None:
    assert compose(config)
    assert {file.stem for file in CONF.glob("*.yaml")} == set(COMMANDS)


def test_a_key_more_is_refused_anywhere() -> None:
    """So every leaf of the YAMLs is a field that something declares: put one more into each mapping in turn.

    (What stands beside a ``_target_`` is checked by the class that it names, in `test_mistakes`.)
    """
    values = composed()
    open_ones = ("optimizer", "callbacks", "logger")
    places = [path for path in mappings(values) if not path or (path[0] not in open_ones and path[-1] != "logit_bias")]
    assert len(places) > 12
    for path in places:
        changed = composed()
        node = changed
        for part in path:
            node = node[part]
        node["surplus"] = 1
        with pytest.raises(UserError, match=r"unknown key '{}'".format(r"\.".join([*path, "surplus"]))):
            RunConfig.from_dict(changed)


def mappings(node: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from mappings(value, (*path, key))


def test_every_field_is_used() -> None:
    """Of the original's 32 training settings 26 were read by nothing. A field is used where some code says
    ``.field``, outside the lines that declare it."""
    source = "\n".join(file.read_text(encoding="utf-8") for file in Path(slm.__file__).parent.rglob("*.py"))
    for cls in (
        TrainerConfig,
        SweepConfig,
        SchedulerConfig,
        GenerationConfig,
        RunConfig,
        FineTuning,
        Lora,
        *nested(ModelConfig),
    ):
        for field in fields(cls):
            assert re.search(rf"\.{field.name}\b", source), f"{cls.__name__}.{field.name} is read by nothing"


def nested(cls: Any) -> Iterator[Any]:
    yield cls
    for hint in get_type_hints(cls).values():
        for option in (hint, *get_args(hint)):
            if is_dataclass(option):
                yield from nested(option)


def test_trainer_yaml_names_what_there_is() -> None:
    """Whoever reads the file sees all there is to set; nothing of Lightning's Trainer is left unsaid: each
    of its settings is passed on, or is ours, or is refused with the one to set instead."""
    default = yaml.safe_load((CONF / "trainer/default.yaml").read_text(encoding="utf-8"))
    assert set(default) == OWN | set(LIGHTNING)
    of_lightning = set(inspect.signature(pl.Trainer).parameters)
    assert set(LIGHTNING) | set(derived()) | {"max_steps", "max_epochs", "max_time", "precision"} == of_lightning
    assert not set(LIGHTNING) & set(derived())
    assert not OWN & set(derived())


@pytest.mark.parametrize("name", sorted(derived()))
def test_what_follows_from_others_names_them(name: str) -> None:
    values = composed()
    values["trainer"][name] = 1
    with pytest.raises(UserError, match=re.escape(derived()[name])):
        RunConfig.from_dict(values)


def test_keys_of_the_original_configuration() -> None:
    """Users of the original find their keys in a model's YAML."""
    model = composed()["model"]
    assert {"max_seq_len", "dropout", "vocab_size"} <= model["params"].keys()
    assert {
        "token_embedding": {"values", "freeze"},
        "position_embedding": {"kind", "rotary", "freeze"},
        "emb_dropout": {"p"},
        "output_projection": {"tie_weights", "softcap", "freeze"},
        "loss": {"kind", "ignore_index"},
    } == {name: set(node) for name, node in model["modules"].items() if name != "transformer"}
    assert {
        "dim", "n_layers", "n_heads", "dropout", "mlp_mult", "activation", "qkv_bias", "prenorm", "norm", "freeze",
    } <= model["modules"]["transformer"].keys()  # fmt: skip


@pytest.mark.parametrize("group", ["experiment", "recipe", "size"])
def test_experiments_are_commented_differences(group: str) -> None:
    for choice in choices(group):
        text = (CONF / group / f"{choice}.yaml").read_text(encoding="utf-8")
        assert text.startswith("# @package _global_\n# ")


def test_recipes_decide_the_same_things() -> None:
    """A setting that only one of them named would come from elsewhere with the other: no comparison of recipes."""
    modern, gpt2 = (yaml.safe_load((CONF / f"recipe/{name}.yaml").read_text()) for name in ("modern", "gpt2"))
    assert set(mappings(modern)) == set(mappings(gpt2))
    assert [*modern["model"]["modules"]["transformer"]] == [*gpt2["model"]["modules"]["transformer"]]
    assert [[*override] for override in modern["defaults"]] == [[*override] for override in gpt2["defaults"]]
    for settings in (("recipe=gpt2", "trainer.max_steps=9"), ("recipe=modern", "model.modules.transformer.dim=384")):
        RunConfig.from_dict(composed(*settings))


def test_the_speedrun_is_within_its_budget_of_parameters() -> None:
    """0.81 M with the 65 characters of Tiny Shakespeare."""
    from slm.models.contract import build_model

    config = RunConfig.from_dict(composed("experiment=speedrun_shakespeare_cpu")).model.with_vocab_size(65)
    assert sum(p.numel() for p in build_model(config).parameters()) <= 810_000


def test_a_users_own_choices(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """``--config-dir``: a model, a trainer and an experiment beside ours, listed in --help as ours are."""
    own = tmp_path / "own conf"
    for file, text in {
        "model/small.yaml": "defaults: [base, _self_]\nmodules: {transformer: {n_layers: 3}}\n",
        "trainer/short.yaml": "defaults: [default, _self_]\nval_every: 2\n",
        "experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /model: small\nseed: 7\n",
    }.items():
        (own / file).parent.mkdir(parents=True)
        (own / file).write_text(text)
    layers = [setting for setting in tiny if "n_layers" not in setting]
    outcome = run_cli("train", *layers, "--config-dir", own, "experiment=mine", "trainer=short", "run_dir=run")
    assert outcome.status == 0, outcome.err
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (config["model"]["modules"]["transformer"]["n_layers"], config["seed"]) == (3, 7)
    (own / "trainer/broken.yaml").write_text("max_steps: [1\n")
    outcome = run_cli("train", "--config-dir", own, "trainer=broken")
    assert (outcome.status, len(outcome.err.splitlines())) == (2, 1)
    assert f"{own}/trainer/broken.yaml" in outcome.err
    outcome = run_cli("train", "--config-dir", own, "model=smal")
    assert (outcome.status, "did you mean 'small'?" in outcome.err) == (2, True)
    said = " ".join(run_cli("train", f"--config-dir={own}", "-h").out.split())
    assert ", ".join(sorted([*choices("model"), "small"])) in said


def test_a_run_of_own_choices_is_resumed(run_cli: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """``resume=PATH`` repeats the old command line, but for ``--config-dir``: what lies there could run code."""
    own = tmp_path / "own"
    (own / "experiment").mkdir(parents=True)
    (own / "experiment/mine.yaml").write_text("# @package _global_\nseed: 7\n")
    outcome = run_cli("train", *tiny, "--config-dir", own, "experiment=mine", "run_dir=run", "stop_after=2")
    assert outcome.status == 0, outcome.err
    outcome = run_cli("train", "resume=run")
    assert (outcome.status, f"its setting --config-dir={own} could run code" in outcome.err) == (2, True)
    outcome = run_cli("train", "resume=run", f"--config-dir={own}")
    assert outcome.status == 0, outcome.err


def test_flags_may_stand_anywhere(run_cli: Any, tiny: tuple[str, ...]) -> None:
    """Between two settings Hydra itself takes no flag: "unrecognized arguments" of all that follows."""
    outcome = run_cli("train", *tiny, "--cfg", "job", "seed=5", "--resolve", "trainer.max_steps=7")
    assert outcome.status == 0, outcome.err
    shown = yaml.safe_load(outcome.out)
    assert (shown["seed"], shown["trainer"]["max_steps"], shown["data"]["seq_len"]) == (5, 7, 16)
