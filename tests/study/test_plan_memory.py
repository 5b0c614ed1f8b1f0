"""Memory and operations of a step without numbers, against torch's own counters and real steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from slm.cli.composition import VERSION_BASE
from slm.cli.train import checked_run
from slm.models.flops import token_flops
from slm.models.kernels.library import without_kernels
from slm.study.plan.allocations import Allocations
from slm.study.plan.fit import fitted
from slm.study.plan.memory import Memory, memory_of
from slm.study.plan.planned import PlannedRun, planned_run
from slm.study.plan.step import TrainingStep
from slm.training.lit_module import TARGETS

Planned = Callable[..., PlannedRun]


@pytest.fixture
def planned(tiny: tuple[str, ...], cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planned]:
    """``planned("trainer.recompute=true")``: the tiny run with changes."""
    monkeypatch.setenv("SLM_CACHE_DIR", str(cache_dir))

    def make(*changes: str, device: str = "cpu") -> PlannedRun:
        with initialize_config_module("slm.conf", **VERSION_BASE):
            composed: Any = OmegaConf.to_container(compose("train", [*tiny, *changes]), resolve=True)
        return planned_run(checked_run(composed), device)

    return make


WIDE = ("model.modules.transformer.n_layers=3", "model.modules.transformer.dim=64")


def test_it_sees_what_torchs_tracker_sees(planned: Planned) -> None:
    """`torch.distributed._tools.MemTracker`, of the same two steps, to the byte."""
    from torch.distributed._tools.mem_tracker import MemTracker

    run = planned(*WIDE)
    peaks = []
    for tracker in (Allocations(), MemTracker()):
        with FakeTensorMode():
            batch: dict[str, Any] = {TARGETS: 64}
            batch |= {name: torch.empty(4, 16, dtype=torch.int64) for name in ("input_ids", "labels")}
            with tracker:
                module = run.module()
                step = TrainingStep(run, module, batch, "cpu")
                step.make()
                if isinstance(tracker, MemTracker):
                    tracker.reset_mod_stats()
                step.make()
        peaks.append(tracker.trace.peak if isinstance(tracker, Allocations) else _total(tracker))
    assert peaks[0] == pytest.approx(peaks[1], abs=4096)


def _total(tracker: Any) -> int:
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def test_kinds_are_what_they_are_called(planned: Planned) -> None:
    """AdamW in fp32: gradients as large as what is trained, state twice that, a checkpoint of all but gradients."""
    memory = memory_of(planned(*WIDE))
    weights = memory.by_kind["weights"]
    assert weights == 4 * memory.parameters["total"] == memory.by_kind["gradients"] == memory.state.model
    assert memory.by_kind["optimizer"] == pytest.approx(2 * weights, rel=1e-3)
    assert memory.by_kind["checkpoint_copy"] == pytest.approx(3 * weights, rel=1e-3)
    assert memory.state.checkpoint == pytest.approx(3 * weights, rel=1e-3)
    assert sum(memory.by_kind.values()) == memory.peak


def test_what_takes_less(planned: Planned) -> None:
    """Recompute and fewer windows take less for activations, async_save=false no copy; a frozen part no state."""
    wide = (*WIDE, "trainer.batch_size=64")
    plain = memory_of(planned(*wide))
    activations = plain.by_kind["activations"]
    assert memory_of(planned(*wide, "trainer.recompute=true")).by_kind["activations"] < activations / 2
    fewer = memory_of(planned(*WIDE, "trainer.batch_size=16", "trainer.global_batch_size=64"))
    assert fewer.by_kind["activations"] == pytest.approx(activations / 4, rel=0.1)
    assert fewer.flops.a_step == pytest.approx(plain.flops.a_step)
    assert "checkpoint_copy" not in memory_of(planned(*wide, "trainer.async_save=false")).by_kind
    frozen = memory_of(planned(*wide, "model.modules.transformer.freeze=true"))
    assert frozen.parameters["trained"] < frozen.parameters["total"] / 2
    assert frozen.by_kind["optimizer"] == pytest.approx(8 * frozen.parameters["trained"], rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_each_optimizer_steps_without_numbers(planned: Planned, optimizer: str) -> None:
    run = planned(*WIDE, f"optimizer={optimizer}", "optimizer.lr=0.01")
    trained = 4 * memory_of(run).parameters["trained"]
    times = memory_of(run).by_kind.get("optimizer", 0) / trained
    assert {"adamw": 1.9 < times < 2.1, "muon": 1 < times < 2.1, "sgd": times < 1.1}[optimizer]


def test_a_gpu_that_is_not_here(planned: Planned) -> None:
    """By the operations of one: none of our kernels, bf16 as it would take, copies on the host."""
    run = planned(*WIDE, "trainer.precision=auto", "trainer.accelerator=auto", device="cuda")
    assert (run.precision, run.is_here) == ("bf16-mixed", torch.cuda.is_available())
    memory = memory_of(run)
    assert "checkpoint_copy" not in memory.by_kind
    assert memory.state.checkpoint > 0
    assert memory.by_kind["process"] >= 5e8


def test_no_kernels_only_inside_the_block() -> None:
    from slm.models.kernels.library import library

    before = library()
    with without_kernels():
        assert library() is None
    assert library() is before


# ---- fit ----


def test_the_largest_that_fits_keeps_the_tokens_of_a_step(planned: Planned) -> None:
    run = planned(*WIDE, "trainer.batch_size=64")

    def memory_by_windows(of: PlannedRun) -> Memory:
        windows = of.config.trainer.windows_at_once * (0.5 if of.config.trainer.recompute else 1)
        return replace(known, peak=int(1000 * windows * (0.5 if of.precision == "bf16-mixed" else 1)))

    known = memory_of(run)
    fit = fitted(run, 16_000, memory_by_windows)
    assert fit.settings == ("trainer.batch_size=16", "trainer.global_batch_size=64")
    assert fitted(run, 10_000, memory_by_windows).settings[0] == "trainer.batch_size=8"
    assert fitted(run, 600, memory_by_windows).settings[2:] == ("trainer.recompute=true",)
    assert fitted(run, 300, memory_by_windows).settings[2:] == ("trainer.recompute=true", "trainer.precision=bf16")
    assert fitted(run, 100, memory_by_windows).memory is None


# ---- operations ----


@pytest.mark.parametrize("changes", [(), ("mlp=glu",), ("n_kv_heads=1",)])
def test_operations_are_those_that_torch_counts(planned: Planned, changes: tuple[str, ...]) -> None:
    """Of all but attention, of which torch's counter sees nothing on a CPU (pytorch 195460)."""
    run = planned(*WIDE, *(f"model.modules.transformer.{change}" for change in changes))
    module, batch = run.module(), run.longest_batch(4)
    step = TrainingStep(run, module, batch, "cpu")
    with FlopCounterMode(display=False) as counter:
        step.micro_step()
    shape = run.model.modules.transformer
    attention = 3 * 4.0 * shape.n_layers * shape.n_heads * shape.head_dim * 16
    ours = token_flops(module.model, 16).of_training(1) - attention
    assert counter.get_total_flops() == pytest.approx(64 * ours)


def test_operations_of_what_is_not_trained(planned: Planned) -> None:
    """A frozen trunk below a trained head: no gradient of its weights; recompute makes the blocks once more."""
    whole = token_flops(planned(*WIDE).module().model, 16)
    assert whole.backward == 2 * whole.forward
    assert whole.of_training(1, recompute=True) == whole.of_training(1) + whole.blocks_forward
    frozen = token_flops(planned(*WIDE, "model.modules.transformer.freeze=true").module().model, 16)
    assert frozen.forward == whole.forward
    products = whole.blocks_forward - 4 * 3 * 64 * 16
    assert whole.backward - frozen.backward == products
