"""Code that a run's folder names is run where everybody has it, or the user names it again; whose run it is is not
asked: no folder can prove that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slm.training.run import recorded_code
from slm.training.run.recorded_code import refuse_unknown_code, refuse_unknown_plugins, refuse_unknown_settings

MINE = """
from subprocess import Popen
import pytorch_lightning as pl
import torch
class Mine(pl.Callback):
    pass
class Slow(torch.optim.SGD):
    pass
"""


@pytest.fixture
def my_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_module.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_module", raising=False)
    return "my_module"


@pytest.mark.nightly
def test_ones_own_callback_is_typed_again(run_cli: Any, tiny: tuple[str, ...], my_module: str) -> None:
    """The setting, or its module; left out, or taken out, it runs nothing. Of the checkpoint alone nothing is built
    that is a callback."""
    mine = "+callbacks.mine._target_=my_module.Mine"
    steps = ("trainer.max_steps=9", "trainer.save_every=1")
    assert run_cli("train", *tiny, *steps, "run_dir=run", "stop_after=2", mine).status == 0
    refused = run_cli("train", "resume=run", "stop_after=3")
    assert refused.status == 2
    assert f"its setting {mine} could run code; if you trust it, type it again" in refused.err
    refused = run_cli("reproduce", "run=run", "steps=2")
    assert (refused.status, "name its module: plugins=[my_module]" in refused.err) == (2, True), refused.err
    assert run_cli("reproduce", "run=run", "steps=2", "plugins=[my_module]").status == 0
    generate = ("generate", "run=run", "prompt=a", "generation.max_new_tokens=1", "checkpoint=last")
    assert run_cli(*generate).status == 0
    assert run_cli("train", "resume=run", "stop_after=3", mine).status == 0
    assert run_cli("train", "resume=run", "stop_after=4", "plugins=[my_module]").status == 0
    assert run_cli(*generate).status == 2, "the module is in config.yaml now"
    assert run_cli("train", "resume=run", "stop_after=5", "~callbacks.mine", "plugins=[]").status == 0


def test_ones_own_optimizer_is_named_for_a_checkpoint(run_cli: Any, tiny: tuple[str, ...], my_module: str) -> None:
    """To open it, that is built; the bundle needs none."""
    own = ("optimizer=sgd", "optimizer._target_=my_module.Slow")
    assert run_cli("train", *tiny, *own, "run_dir=run", "stop_after=2").status == 0
    generate = ("generate", "run=run", "prompt=a", "generation.max_new_tokens=1")
    assert run_cli(*generate).status == 0
    refused = run_cli(*generate, "checkpoint=last")
    assert (refused.status, "would run my_module.Slow" in refused.err) == (2, True)
    assert run_cli(*generate, "checkpoint=last", "plugins=[my_module]").status == 0


def test_what_a_module_imports_is_not_its_own(tmp_path: Path, my_module: str) -> None:
    """A name in a module that is trusted may be the system's."""
    for name in ("Popen", "pl.Callback", "NoSuch", "torch.os.system"):
        with pytest.raises(ValueError, match="could run code"):
            refuse_unknown_settings(tmp_path, [f"+callbacks.x._target_=my_module.{name}"], ["plugins=[my_module]"])


def test_installed_plugins_are_known(tmp_path: Path, my_module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command imports them anyway; whoever installed the package trusts it."""
    (tmp_path / "config.yaml").write_text("plugins: [my_module]\ncallbacks: {mine: {_target_: my_module.Mine}}\n")
    with pytest.raises(ValueError, match="wants modules imported"):
        refuse_unknown_plugins(tmp_path, ())
    entry_point = type("EntryPoint", (), {"module": my_module})
    monkeypatch.setattr(recorded_code, "entry_points", lambda group: [entry_point] if group == "slm.plugins" else [])
    refuse_unknown_code(tmp_path, (), left_out=())
    refuse_unknown_settings(tmp_path, ["plugins=[my_module]", "+callbacks.x._target_=my_module.Mine"], ())
    with pytest.raises(ValueError, match="could run code"):
        refuse_unknown_settings(tmp_path, ["+callbacks.x._target_=my_module.Popen"], ())


@pytest.mark.parametrize(
    "setting",
    [
        "+callbacks.x={_target_:os.system}",
        "optimizer._target_=subprocess.Popen",
        "+callbacks.x._target_=torch.optim.AdamW.x.y",
        "+callbacks.x._target_=torch.load",
        "+callbacks.x._target_=slm.training.run.folder.shutil.rmtree",
        "+callbacks.x._target_=slm.training.watch.sample_text.os.system",
        "plugins=[a]",
        "+plugins=[a]",
        "hydra/launcher=joblib",
        "hydra.searchpath=[file:///tmp]",
        "callbacks=../../../tmp/evil",
        "+callbacks@callbacks.x=../evil",
        '+a=${oc.decode:"{_tar${b}: os.system}"}',
        "+logger.wandb.settings={base_url:http://evil}",
        "--config-path=/tmp",
    ],
)
def test_settings_that_could_run_code(setting: str, tmp_path: Path) -> None:
    """By a class, a module, YAML of one's own, a server that gets a key, or what becomes one of these."""
    with pytest.raises(ValueError, match="could run code"):
        refuse_unknown_settings(tmp_path, ["seed=1", setting], [])


def test_settings_that_cannot(tmp_path: Path) -> None:
    """So that the runs of others can be resumed, and most of one's own as they are."""
    refuse_unknown_settings(
        tmp_path,
        [
            "optimizer._target_=torch.optim.RAdam",
            "+callbacks.stop._target_=pytorch_lightning.callbacks.EarlyStopping",
            "+logger.wandb.notes=hello",
            "trainer.save_every=${trainer.val_every}",
            "data.path=../words.txt",
            "model=base",
            "+optimizer.foreach=true",
            "logger=[tensorboard]",
            "trainer.max_steps=5",
            "~callbacks.progress",
        ],
        [],
    )


@pytest.mark.parametrize("value", ["{_target_: os.system}", "'${oc.decode:\"{_tar${b}: os.system}\"}'"])
def test_a_configuration_that_could_run_code(tmp_path: Path, value: str) -> None:
    """By a class, or by what becomes one only when it is built."""
    (tmp_path / "config.yaml").write_text(f"optimizer: {{_target_: torch.optim.SGD}}\ncallbacks: {{x: {value}}}\n")
    refuse_unknown_code(tmp_path, (), left_out=("callbacks",))
    with pytest.raises(ValueError, match=r"which its config\.yaml names; if you trust it"):
        refuse_unknown_code(tmp_path, (), left_out=())


def test_what_is_taken_out_runs_nothing(tmp_path: Path) -> None:
    own = ["+callbacks.x._target_=os.system", "+callbacks.x.command=ls", "+callbacks.xy._target_=torch.optim.SGD"]
    refuse_unknown_settings(tmp_path, own, ["~callbacks.x"])
    for typed in ("~callbacks.xy", "callbacks.x=1", "~callbacks"):
        with pytest.raises(ValueError, match="could run code"):
            refuse_unknown_settings(tmp_path, own, [typed])
