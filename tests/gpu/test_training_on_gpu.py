"""Runs on a GPU: the CPU's losses, exact resumes, bad steps without a word to the host, nobody waiting."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from slm.training import runner
from slm.training.lit_module import LanguageModelModule

Train = Callable[..., Path]
MODERN = ("recipe=modern", "model.modules.output_projection.softcap=15")


def state_of(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return state


@pytest.mark.parametrize("changes", [(), MODERN], ids=["gpt2", "modern"])
def test_trains_as_the_cpu_does(train_tiny: Train, train_on_gpu: Train, metrics_of: Any, changes: tuple[str]) -> None:
    """In fp32, step by step."""
    cpu, gpu = (metrics_of(train(name, *changes)) for train, name in ((train_tiny, "cpu"), (train_on_gpu, "gpu")))
    assert len(cpu) == len(gpu)
    for mine, theirs in zip(gpu, cpu, strict=True):
        for name in ("train/loss", "val/loss", "train/grad_norm"):
            if theirs.get(name):
                assert float(mine[name]) == pytest.approx(float(theirs[name]), rel=2e-3), name


@pytest.mark.parametrize(
    "changes",
    [("trainer.precision=bf16",), ("trainer.precision=16",), ("trainer.precision=bf16", *MODERN)],
    ids=["bf16", "fp16", "modern"],
)
def test_is_resumed_bit_for_bit(train_on_gpu: Train, run_cli: Any, metrics_of: Any, changes: tuple[str]) -> None:
    """Dropout and all, with deterministic kernels; two micro-batches a step."""
    settings = (*changes, "trainer.deterministic=true", "model.params.dropout=0.1", "trainer.global_batch_size=8")
    whole = train_on_gpu("whole", *settings)
    part = train_on_gpu("part", *settings, "stop_after=3")
    assert run_cli("train", "resume=part").status == 0
    assert metrics_of(whole) == metrics_of(part)
    ours, theirs = state_of(part), state_of(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class Poison(pl.Callback):
    """Makes one gradient infinite in one step."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.global_step == 3:
            next(p for p in pl_module.parameters() if p.dim() == 2).grad[0, 0] = float("inf")


@pytest.mark.parametrize("changes", [(), MODERN], ids=["adamw", "muon"])
def test_a_bad_step_is_left_out_and_written_down(
    train_on_gpu: Train, monkeypatch: pytest.MonkeyPatch, changes: tuple[str]
) -> None:
    """The kernels are told on the device; weights stay finite, and the file names the step."""
    before = LanguageModelModule.on_before_optimizer_step

    def poisoned(self: Any, optimizer: Any) -> None:
        before(self, optimizer)
        Poison().on_before_optimizer_step(self.trainer, self, optimizer)

    monkeypatch.setattr(LanguageModelModule, "on_before_optimizer_step", poisoned)
    run = train_on_gpu("bad", *changes, "trainer.grad_clip=1.0")
    assert [json.loads(line)["step"] for line in (run / "bad_steps.jsonl").read_text().splitlines()] == [4]
    assert all(tensor.isfinite().all() for tensor in state_of(run).values())


@pytest.fixture
def waiting_is_an_error() -> Iterator[Callable[[bool], None]]:
    """A switch: PyTorch raises where the host waits for the device."""

    def switch(on: bool) -> None:
        torch.cuda.set_sync_debug_mode("error" if on else "default")

    switch(True)
    with pytest.raises(RuntimeError, match="synchronizing"):  # it sees what it should
        torch.ones(1, device="cuda").item()
    switch(False)
    yield switch
    switch(False)


@pytest.mark.parametrize("changes", [(), MODERN], ids=["adamw", "muon"])
def test_no_step_waits_for_the_device(
    train_on_gpu: Train,
    monkeypatch: pytest.MonkeyPatch,
    waiting_is_an_error: Callable[[bool], None],
    changes: tuple[str],
) -> None:
    """Steps 3 to 6 of 8, between rows of the log, validation and saves, which read figures."""

    class NobodyWaits(pl.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            waiting_is_an_error(2 <= trainer.global_step < 6)

    configured = runner.callbacks_of
    monkeypatch.setattr(runner, "callbacks_of", lambda config: [*configured(config), NobodyWaits()])
    periods = ("trainer.log_every=100", "trainer.val_every=100", "trainer.save_every=100")
    train_on_gpu("free", *changes, *periods, "trainer.max_steps=8", "trainer.grad_clip=1.0", "trainer.precision=bf16")


def test_compiled_it_trains_alike(train_on_gpu: Train, metrics_of: Any, run_cli: Any) -> None:
    """Within what fused bf16 kernels round otherwise; no fall-back."""
    eager = metrics_of(train_on_gpu("eager", "trainer.precision=bf16"))
    compiled = metrics_of(train_on_gpu("compiled", "trainer.precision=bf16", "trainer.compile=true"))
    for mine, theirs in zip(compiled, eager, strict=True):
        for name in ("train/loss", "val/loss"):
            if theirs.get(name):
                assert float(mine[name]) == pytest.approx(float(theirs[name]), rel=5e-3), name


def test_a_run_writes_text(train_on_gpu: Train, run_cli: Any) -> None:
    """A run of a GPU is generated from on the GPU and on the CPU, greedily alike in fp32."""
    train_on_gpu("run", "trainer.max_steps=40", "trainer.val_every=20")
    arguments = ("run=run", "prompt=the cat", "generation=greedy", "generation.max_new_tokens=12", "dtype=float32")
    outcomes = [run_cli("generate", *arguments, f"device={device}") for device in ("cuda", "cpu")]
    assert [outcome.status for outcome in outcomes] == [0, 0], outcomes[0].err
    assert outcomes[0].out == outcomes[1].out
