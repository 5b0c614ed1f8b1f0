"""A run's folder is taken at its word where this user made it, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slm.training.run.recorded_code import refuse_code_of_others

CALLBACK = "import pytorch_lightning as pl\nclass Mine(pl.Callback):\n    pass\n"


def test_of_ones_own_run_it_is_repeated_of_a_changed_one_it_is_not(
    run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_dir: Path
) -> None:
    """The same folder with one setting changed, or on another machine (another key), needs it typed again."""
    (tmp_path / "my_callback.py").write_text(CALLBACK)
    monkeypatch.syspath_prepend(tmp_path)
    mine = "+callbacks.mine._target_=my_callback.Mine"
    assert run_cli("train", *tiny, "run_dir=run", "stop_after=2", mine).status == 0
    record = tmp_path / "run" / "run.json"
    own = record.read_text()
    changed = json.loads(own)
    changed["overrides"].append("+callbacks.evil._target_=os.system")
    record.write_text(json.dumps(changed))
    refused = run_cli("train", "resume=run", "stop_after=4")
    assert (refused.status, f"{mine} could run code" in refused.err) == (2, True), refused.err
    record.write_text(own)
    assert run_cli("train", "resume=run", "stop_after=3").status == 0
    key = cache_dir / "run_key"
    kept = key.read_bytes()
    try:
        key.write_bytes(bytes(32))
        assert run_cli("train", "resume=run", "stop_after=5").status == 2
        assert run_cli("train", "resume=run", "stop_after=5", mine).status == 0  # typed: the user's own word
    finally:
        key.write_bytes(kept)


@pytest.mark.parametrize(
    "setting",
    [
        "+callbacks.x={_target_:os.system}",
        "optimizer._target_=subprocess.Popen",
        "+callbacks.x._target_=torch.optim.AdamW.x.y",
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
        refuse_code_of_others(tmp_path, ["seed=1", setting])


def test_settings_that_cannot(tmp_path: Path) -> None:
    """So that the runs of others can be resumed."""
    harmless = [
        "optimizer._target_=torch.optim.RAdam",
        "data.path=../words.txt",
        "model=base",
        "+optimizer.foreach=true",
    ]
    refuse_code_of_others(tmp_path, [*harmless, "logger=[tensorboard]", "trainer.max_steps=5", "~callbacks.progress"])
