"""``+sweep=ladder``: what it is written out as, and what a rung of it is."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from slm.cli.composition import VERSION_BASE
from slm.cli.ladder import with_rungs
from slm.study.ladder import rules
from slm.training.run_config import RunConfig

DIAL = "model.modules.transformer.n_layers"


@pytest.mark.parametrize("typed", ["sweep=ladder", "+sweep=ladder"])
def test_it_is_a_choice_and_depths(typed: str) -> None:
    """So that each run of it is a plain one, which resumes and is made again by its own command line."""
    assert with_rungs(["-m", typed, "seed=1,2"]) == ["-m", "seed=1,2", "size=ladder", f"{DIAL}=2,3,4,5,6"]
    assert with_rungs([typed, f"{DIAL}=1,2"]) == [f"{DIAL}=1,2", "size=ladder"]
    assert with_rungs(["sweep=tpe", "seed=1,2"]) == ["sweep=tpe", "seed=1,2"]


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_a_rung_has_what_the_rules_say(depth: int) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_module("slm.conf", **VERSION_BASE):
        values = OmegaConf.to_container(compose("train", ["size=ladder", f"{DIAL}={depth}"]), resolve=True)
    assert isinstance(values, dict)
    values.pop("sweep", None)
    config = RunConfig.from_dict(values)  # type: ignore[arg-type]
    shape, trainer = config.model.modules.transformer, config.trainer
    assert (shape.n_layers, shape.dim, shape.n_heads) == (depth, 64 * depth, depth)
    seq_len = config.data.seq_len
    assert trainer.max_steps == rules.steps(depth, seq_len)
    assert trainer.global_batch_size == rules.windows(depth, seq_len)
    assert trainer.accumulation(1) * trainer.windows_at_once == trainer.global_batch_size
