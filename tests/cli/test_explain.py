"""--explain: the value of each setting, and what set it: change that, and the value changes."""

from __future__ import annotations

import importlib.util
import random
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from test_commands import command

from slm.cli.composition import CONF, VERSION_BASE, Composition
from slm.cli.explain import Leaf, leaves_of

CHANGED = "changed 2026"
POOL = [
    "model=gpt2_medium", "model=smollm2_135m", "optimizer=muon", "optimizer=sgd", "scheduler=wsd", "recipe=modern",
    "recipe=gpt2", "experiment=shakespeare_char_cpu", "experiment=speedrun_shakespeare_cpu", "experiment=sft_toy",
    "logger=[tensorboard,wandb]", "logger=wandb", "trainer=debug", "trainer=gpu", "callbacks=none", "generation=greedy",
    "tokenizer=byte", "data=text", "task=sft", "adapter=lora", "+data@data.parts.code=code", "optimizer.lr=0.5",
    "model.params.max_seq_len=64", "data.seq_len=32", "model.modules.transformer={dim: 8, bias: false}", "seed=7",
    "++trainer.max_steps=9", "+callbacks.mine={_target_: a.b, c: 1}", "~generation.stop", "stop_after=${seed}",
    "model.modules.position_embedding.rotary.scaling={kind: linear, factor: 2.0}", "optimizer.betas=[0.8,0.9]",
]  # fmt: skip


def drawn(seed: int) -> list[str]:
    """Up to six settings, no two for one group or key."""
    draw = random.Random(seed)
    found: dict[str, str] = {}
    for setting in draw.sample(POOL, draw.randint(1, 6)):
        found.setdefault(setting.partition("=")[0], setting)
    return list(found.values())


def leaves(overrides: list[str]) -> list[Leaf]:
    return leaves_of(Composition("train"), overrides)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of our YAMLs that is composed in their place."""
    folder = tmp_path / "conf"
    shutil.copytree(str(files("slm.conf")), folder)
    spec = importlib.util.spec_from_file_location("slm.conf", folder / "__init__.py", submodule_search_locations=[])
    assert spec is not None
    monkeypatch.setitem(sys.modules, "slm.conf", importlib.util.module_from_spec(spec))
    return folder


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(n, marks=pytest.mark.nightly) for n in range(8, 20))])
def test_values_are_those_composed(seed: int) -> None:
    """Beside Hydra's own composition: the same keys, in the same order, and the same values."""
    overrides = drawn(seed)
    GlobalHydra.instance().clear()
    with initialize_config_module(CONF, **VERSION_BASE):
        cfg = hydra_compose("train", overrides=overrides)
    expected: dict[str, Any] = {}
    flatten(OmegaConf.to_container(cfg, resolve=False), "", expected)
    found = leaves(overrides)
    assert {leaf.key: leaf.written for leaf in found} == expected
    assert [leaf.key for leaf in found] == list(expected)
    for leaf in found:
        if leaf.key != "run_dir" and leaf.written != "???" and not leaf.key.endswith("save_dir"):  # the time in it
            value = OmegaConf.select(cfg, leaf.key)
            assert leaf.value == (OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)


def flatten(node: Any, prefix: str, into: dict[str, Any]) -> None:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            flatten(value, f"{prefix}{key}.", into)
        else:
            into[f"{prefix}{key}"] = value


@pytest.mark.parametrize("seed", [21, *(pytest.param(n, marks=pytest.mark.nightly) for n in (20, *range(22, 32)))])
def test_what_is_named_sets_it(conf: Path, seed: int) -> None:
    """Edit the file that is named, or the setting: that leaf is what was put there, and no file after it says more."""
    overrides = drawn(seed)
    draw = random.Random(seed)
    before = leaves(overrides)
    of_settings = [leaf for leaf in before if leaf.origin.setting is not None]
    assert {leaf.origin.folder for leaf in before if leaf not in of_settings} <= {"conf"}
    for leaf in draw.sample(before, 4) + of_settings[:3]:
        if leaf.value == {}:
            continue  # to put text in a mapping's place is no change of a value
        if leaf.origin.setting is not None:
            changed = [f"++{leaf.key}={CHANGED}" if one == leaf.origin.setting else one for one in overrides]
            assert leaf.origin.setting in overrides
            after = leaves(changed)
        else:
            file = conf / f"{leaf.origin.file}.yaml"
            text = file.read_text(encoding="utf-8")
            file.write_text(edited(text, inside(leaf.key, leaf.origin.package)), encoding="utf-8")
            after = leaves(overrides)
            file.write_text(text, encoding="utf-8")
        assert {one.key: one.written for one in after}[leaf.key] == CHANGED, (leaf, overrides)


def inside(key: str, package: str) -> list[str]:
    """The key as the file has it, that fills `package`."""
    assert not package or key.startswith(f"{package}.")
    return key[len(package) + 1 if package else 0 :].split(".")


def edited(text: str, path: list[str]) -> str:
    """A YAML file with `CHANGED` at `path`, which it must have."""
    header = text.partition("\n")[0] if text.startswith("# @package") else ""
    content = yaml.safe_load(text)
    node = content
    for part in path[:-1]:
        node = node[part]
    assert path[-1] in node, path
    node[path[-1]] = CHANGED
    return f"{header}\n{yaml.safe_dump(content, sort_keys=False)}"


def test_the_table(run_cli: Any) -> None:
    settings = ("experiment=speedrun_shakespeare_cpu", "optimizer.lr=0.5", "data.path=a b.txt")
    outcome = run_cli("train", "--explain", *settings)
    assert (outcome.status, outcome.err) == (0, "")
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    for line in (
        "lr 0.5 command line: optimizer.lr=0.5",
        "betas [0.9, 0.95] conf/experiment/speedrun_shakespeare_cpu.yaml",
        "eps 1e-10 conf/optimizer/muon.yaml",
        "max_seq_len 64 conf/experiment/shakespeare_char_cpu.yaml",
        "<- model.params.max_seq_len (conf/experiment/shakespeare_char_cpu.yaml)",
        "kind rotary conf/recipe/modern.yaml",
        "path a b.txt command line: data.path='a b.txt'",
        "accelerator auto conf/trainer/default.yaml",
    ):
        assert line in lines, outcome.out
    long = [line for line in outcome.out.splitlines() if len(line) > 100]
    assert all("://" in line for line in long), long


def test_only_what_is_asked_for(run_cli: Any) -> None:
    outcome = run_cli("train", "seed", "--explain", "seed=3", "optimizer.lr")
    assert outcome.out.split() == ["seed", "3", "command", "line:", "seed=3", "optimizer", "lr", "auto",
                                   "conf/optimizer/muon.yaml"]  # fmt: skip
    outcome = run_cli("train", "--explain", "optimiser")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == "slm-train: there is no setting 'optimiser' to explain; did you mean 'optimizer'?\n"
    outcome = run_cli("train", "--explain", "lr=3", "optimizer")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == "slm-train: unknown key 'lr'; did you mean 'optimizer.lr'?\n"


def test_a_users_own_folder_is_named(run_cli: Any, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "experiment").mkdir(parents=True)
    (own / "experiment/mine.yaml").write_text("# @package _global_\nseed: 7\n")
    outcome = run_cli("train", "--config-dir", own, "--explain", "experiment=mine", "seed")
    assert outcome.out.split() == ["seed", "7", f"{own}/experiment/mine.yaml"]


def test_a_resumed_run_and_weights(run_cli: Any, tiny_run: Path) -> None:
    """What the run was started with is implied by its name; so are the groups that weights choose."""
    outcome = run_cli("train", "--explain", f"resume={tiny_run}", "trainer.batch_size=2", "trainer")
    said = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert "max_steps 40 implied: trainer.max_steps=40" in said, outcome.out + outcome.err
    assert "batch_size 2 command line: trainer.batch_size=2" in said
    outcome = run_cli("train", "--explain", "model.weights=somewhere", "model", "tokenizer")
    said = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert "weights somewhere command line: model.weights='somewhere'" in said
    assert "kind pretrained conf/tokenizer/pretrained.yaml" in said


@pytest.mark.parametrize("name", ["generate", "evaluate", "prepare", "convert", "crawl"])
def test_every_command_explains(run_cli: Any, name: str) -> None:
    outcome = run_cli(name, "--explain", *(["data=text"] if name in ("evaluate", "prepare") else []))
    assert (outcome.status, outcome.err) == (0, "")
    assert f"conf/{name}.yaml" in outcome.out


def test_it_answers_at_once_without_torch(tmp_path: Path) -> None:
    answer = command("slm-train", "--explain", "optimizer", cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
