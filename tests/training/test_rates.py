"""Learning rates of whole runs, for every schedule, optimizer, origin and width, against formulas written down here."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from slm.cli.composition import CONF, VERSION_BASE
from slm.errors import UserError
from slm.schema import checked
from slm.training.config import SchedulerConfig
from slm.training.optim.config import optimizer_problems, with_rates, with_warmup_steps
from slm.training.optim.parameter_groups import parameter_groups
from slm.training.optim.schedules import Schedule, describe_schedule
from slm.training.parts import optimizer_factory
from slm.training.tasks.task import task_of

WIDTHS = (64, 192, 384, 576, 768, 2048, 4096)
STEPS = 43
TASKS = {
    "pretrain": {"kind": "pretrain"},
    "sft": {"kind": "sft"},
    "dpo": {"kind": "dpo"},
    "orpo": {"kind": "dpo", "loss": "orpo"},
    "kto": {"kind": "kto"},
}
ORIGINS = [("scratch", False), *((task, lora) for task in TASKS for lora in (False, True))]


@lru_cache(maxsize=64)
def composed(group: str, choice: str) -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_module(CONF, **VERSION_BASE):
        return OmegaConf.to_container(compose("train", overrides=[f"{group}={choice}"])[group], resolve=True)


def adams_rate(width: int, origin: str, lora: bool) -> float:
    """From scratch 2e-3 at width 192, as one over the width; of weights a tenth; for preferences 1e-6, and 5e-7 at
    4,096; with LoRA ten times that of all weights."""
    scratch = 0.384 / width
    rates = {"scratch": scratch, **dict.fromkeys(("dpo", "kto"), min(1e-6, 2.048e-3 / width))}
    return float(rates.get(origin, scratch / 10) * (10 if lora else 1))


def peaks(optimizer: str, width: int, origin: str, lora: bool) -> set[float]:
    """Of all groups."""
    adam = adams_rate(width, origin, lora)
    return {"sgd": {0.1}, "muon": {0.02 * adam / (0.384 / width), 15 * adam}}.get(optimizer, {adam})


def shape(schedule: str, step: int) -> float:
    """Of 43 steps 4 are warmup, but of trapezoid, which falls over 34 of them; wsd over 9."""
    warmup = 0 if schedule in ("none", "trapezoid") else 4
    if step < warmup:
        return (step + 1) / 5
    if schedule == "cosine":
        return 0.05 + 0.95 * math.cos(math.pi / 2 * (step - 4) / 39) ** 2
    if schedule == "linear":
        return 0.05 + 0.95 * (43 - step) / 39
    falling = {"wsd": 9, "trapezoid": 34}.get(schedule)
    return 1.0 if falling is None else min(1.0, (43 - step) / falling)


class Small(nn.Module):
    """A table, a hidden matrix, a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(3, 2), nn.Linear(2, 2)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "trapezoid", "constant", "none"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "schedule_free", "sgd"])
def test_no_rate_is_above_its_peak_or_rises_after_it(optimizer: str, schedule: str) -> None:
    """Of every group. `min_lr` was absolute: GPT-2's 5e-5 rose to 1e-4 by default."""
    config = checked(SchedulerConfig, composed("scheduler", schedule))
    settings = composed("optimizer", optimizer)
    assert optimizer_problems(settings) == []
    for origin, lora in ORIGINS:
        for width in WIDTHS:
            if optimizer == "muon" and lora:
                continue
            from_weights = None if origin == "scratch" else task_of(TASKS[origin]).fine_tuning_lr
            told = with_warmup_steps(with_rates(settings, width, from_weights, lora), STEPS)
            factory = optimizer_factory(told, lora)
            made = factory(parameter_groups(Small(), 0.1, by_role=optimizer == "muon"))
            if optimizer == "schedule_free":
                made.train()  # type: ignore[attr-defined]
            steps = LambdaLR(made, Schedule.of(config, STEPS).factor)
            rows = []
            for _ in range(STEPS + 1):
                rows.append([group["lr"] for group in made.param_groups])
                made.step()
                steps.step()
            tops = [max(rates) for rates in zip(*rows, strict=True)]
            assert sorted(set(tops)) == pytest.approx(sorted(peaks(optimizer, width, origin, lora)), rel=1e-12)
            for top, rates in zip(tops, zip(*rows, strict=True), strict=True):
                expected = [top * shape(schedule, step) for step in range(STEPS + 1)]
                assert list(rates) == pytest.approx(expected, rel=1e-12, abs=1e-18)
                peak = rates.index(top)
                assert all(later <= earlier for earlier, later in zip(rates[peak:], rates[peak + 1 :], strict=False))


def test_a_warmup_of_the_optimizers_own_is_a_share_too() -> None:
    """It was 50 steps of a run of 20."""
    settings = composed("optimizer", "schedule_free")
    assert [with_warmup_steps(settings, steps)["warmup_steps"] for steps in (20, 500)] == [2, 50]
    assert with_warmup_steps({**settings, "warmup_steps": 7}, 20)["warmup_steps"] == 7


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"name": "wsd", "warmup_steps": 80, "decay_fraction": 0.5},
            "from step 80 on and not 50, to let the warmup end",
        ),
        ({"name": "cosine", "warmup_steps": 200}, "the warmup of 200 steps outlasts the run"),
        (
            {"name": "cosine", "warmup_steps": 0.1, "min_lr_ratio": 0.05},
            "cosine: 10 steps of warmup, down to 5 % of the peak",
        ),
    ],
)
def test_a_schedule_says_what_becomes_of_it(settings: dict[str, Any], said: str) -> None:
    assert said in describe_schedule(Schedule.of(checked(SchedulerConfig, settings), 100))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"min_lr_ratio": 1.5}, "scheduler.min_lr_ratio should be less than or equal to 1; got 1.5"),
        ({"warmup_steps": 1.5}, "warmup_steps must be a whole number, or a share of all steps below 1; got 1.5"),
        ({"decay_fraction": 0.5}, "decay_fraction does not go with the schedule 'cosine'; leave it out"),
        ({"name": "constant", "min_lr_ratio": 0.5}, "min_lr_ratio does not go with the schedule 'constant'"),
        ({"name": "none", "warmup_steps": 5}, "warmup_steps does not go with the schedule 'none'"),
    ],
)
def test_what_a_schedule_does_not_take_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        checked(SchedulerConfig, settings, "scheduler")
    assert said in str(refused.value)


SGD, MUON, ADAMW = "torch.optim.SGD", "slm.training.optim.muon.Muon", "torch.optim.AdamW"
FREE = "schedulefree.AdamWScheduleFree"


@pytest.mark.parametrize(
    ("target", "settings", "said"),
    [
        (SGD, {"nesterov": True, "momentum": 0.0}, "nesterov looks ahead along a momentum above 0"),
        (SGD, {"momentum": -0.5}, "optimizer.momentum should be greater than or equal to 0; got -0.5"),
        (SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "dampening 0.1"),
        (MUON, {"momentum": 1.5}, "optimizer.momentum should be less than 1; got 1.5"),
        (MUON, {"ns_steps": 0}, "optimizer.ns_steps should be greater than 0; got 0"),
        (MUON, {"adam_lr": -1.0}, "optimizer.adam_lr"),
        (ADAMW, {"betas": [0.9, 1.0]}, "optimizer.betas.1 should be less than 1; got 1.0"),
        (ADAMW, {"eps": 0.0}, "optimizer.eps"),
        (ADAMW, {"weight_decay": -0.1}, "optimizer.weight_decay"),
        (ADAMW, {"fused": "yes"}, "optimizer.fused"),
        ("torch.optim.RMSprop", {"alpha": 1.5}, "optimizer.alpha"),
        (FREE, {"warmup_steps": -5}, "optimizer.warmup_steps"),
        (FREE, {"warmup_steps": 5.5}, "warmup_steps must be a whole number, or a share of all steps; got 5.5"),
    ],
)
def test_settings_out_of_range_are_found_without_torch(target: str, settings: dict[str, Any], said: str) -> None:
    """Muon and schedule-free take anything, torch's own complain when training begins, with a traceback."""
    (line,) = optimizer_problems({"_target_": target, "lr": 0.1, **settings})
    assert said in line


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"_target_": "torch.optim.LBFGS"}, "doesn't support per-parameter options"),
        ({"_target_": ADAMW, "fused": True, "foreach": True}, "`fused` and `foreach` cannot be `True` together"),
        ({"_target_": "torch.optim.Adadelta", "rho": 2.0}, "Invalid rho value: 2.0"),
    ],
)
def test_what_an_optimizer_itself_refuses_is_known_before_the_data(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        optimizer_factory({"lr": 0.1, **settings}, lora=False)
    assert said in str(refused.value)


@pytest.mark.parametrize("settings", [{"momentum": 1.0}, {"momentum": -0.1}, {"ns_steps": 0}])
def test_muon_takes_no_nonsense_from_python_either(settings: dict[str, Any]) -> None:
    from slm.training.optim.muon import Muon

    with pytest.raises(ValueError, match="momentum must be from 0 on and below 1, ns_steps at least 1"):
        Muon(parameter_groups(Small(), 0.1, by_role=True), **settings)


def test_a_run_says_and_records_what_its_settings_come_to(run_cli: Any, tiny: Any, tmp_path: Any) -> None:
    """``config.yaml`` says ``auto`` and a share; the numbers stood nowhere. 18,000 bytes are 1,125 windows of 16; at
    width 32 Muon's tables have 15 x 0.384 / 32."""
    open_ones = [s for s in tiny if not s.startswith(("optimizer.lr", "scheduler.warmup", "trainer.max_steps"))]
    outcome = run_cli("train", *open_ones, "optimizer=muon", "trainer.max_epochs=0.02", "run_dir=run")
    assert outcome.status == 0, outcome.err
    # 0.02 passes over 1,125 windows are 22.5, of which a step takes 4
    assert "steps 6 of 4 windows; passes: 0.0213 over 1,125 windows" in outcome.err
    assert (
        "learning rates lr 0.02 (auto), adam_lr 0.18 (auto); cosine: 1 step of warmup, down to 5 % of the peak"
        in outcome.err
    )
    resolved = json.loads((tmp_path / "run/run.json").read_text())["resolved"]
    assert resolved["trainer.max_steps"] == 6
    assert resolved["optimizer.lr"] == 0.02
    assert resolved["optimizer.adam_lr"] == pytest.approx(15 * 0.384 / 32)
    assert resolved["scheduler.warmup_steps"] == 1
    assert (tmp_path / "run/checkpoints/step_00000006.ckpt").is_file()


@pytest.mark.nightly
def test_passes_or_steps(run_cli: Any, tiny: Any, train_tiny: Any, tmp_path: Any, metrics_of: Any) -> None:
    """A run of so many passes is that of as many steps, also in parts; whoever goes on may say it the other way."""
    passes = [s for s in tiny if not s.startswith("trainer.max_steps")]
    outcome = run_cli("train", *tiny, "trainer.max_epochs=2", "run_dir=both")
    assert (outcome.status, (tmp_path / "both").exists()) == (2, False)
    assert "give max_steps or max_epochs, and the other as null; got max_steps=6 and max_epochs=2" in outcome.err
    outcome = run_cli("train", *passes, "trainer.max_epochs=0.02", "stop_after=3", "run_dir=parts")
    assert outcome.status == 0, outcome.err
    assert run_cli("train", "resume=parts").status == 0
    whole = train_tiny("whole")
    assert metrics_of(tmp_path / "parts") == metrics_of(whole)
    assert (
        "nothing is left to do"
        in run_cli("train", *passes, "trainer.max_epochs=0.02", "run_dir=parts", "resume=auto").err
    )
    outcome = run_cli("train", "resume=parts", "trainer.max_steps=8")
    assert outcome.status == 0, outcome.err
    assert metrics_of(tmp_path / "parts")[-1]["step"] == "8"


def test_auto_finds_a_run_whose_settings_imply_others(run_cli: Any, tiny: Any, tiny_run: Any) -> None:
    """``model=pretrained`` is recorded and not typed: each time another run began."""
    own = [s for s in tiny if not s.startswith(("model.", "tokenizer", "trainer.max_steps"))]
    command = (*own, f"model.weights={tiny_run}", "trainer.max_epochs=0.004", "resume=auto")
    assert "nothing is left to do" not in run_cli("train", *command).err
    assert "nothing is left to do" in run_cli("train", *command).err


def test_settings_that_nothing_trained_takes_are_told(run_cli: Any, tiny: Any) -> None:
    """With all hidden matrices frozen, Muon's rate could be anything."""
    frozen = "model.modules.transformer.freeze=true"
    outcome = run_cli("train", *tiny, "optimizer=muon", frozen, "trainer.max_steps=1", "run_dir=run")
    assert outcome.status == 0, outcome.err
    assert "optimizer: nothing that is trained takes lr, momentum, ns_steps; what they are set to" in outcome.err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("optimizer=sgd", "optimizer.momentum=0"), "nesterov looks ahead"),
        (("seed=4294967296",), "seed should be less than or equal to 4294967295; got 4294967296"),
        (("trainer.limit_val_batches=0.001",), "trainer.limit_val_batches=0.001 of 32 batches is less than one"),
        (("trainer.max_time=soon",), "trainer.max_time: must be"),
        (("scheduler.min_lr=1e-4",), "the floor is a fraction of the peak rate, scheduler.min_lr_ratio"),
        (("+scheduler.min_lr=1e-4",), "the floor is a fraction of the peak rate, scheduler.min_lr_ratio"),
    ],
)
def test_refused_before_any_work(run_cli: Any, tiny: Any, tmp_path: Any, settings: Any, said: str) -> None:
    outcome = run_cli("train", *tiny, *settings, "run_dir=run")
    assert (outcome.status, (tmp_path / "run").exists()) == (2, False)
    assert said in outcome.err
    assert outcome.err.strip().splitlines()[-1].startswith("slm-train: ")


def test_the_first_step_is_told(run_cli: Any, tiny: Any, tmp_path: Any, metrics_of: Any) -> None:
    """Twenty steps of fine-tuning may take ten minutes."""
    outcome = run_cli("train", *tiny, "callbacks=progress", "trainer.log_every=4", "run_dir=run")
    assert outcome.status == 0, outcome.err
    assert [row["step"] for row in metrics_of(tmp_path / "run") if row["train/loss"]] == ["1", "4", "6"]
    assert any(line.startswith("step 1/6  loss ") for line in outcome.err.splitlines())


def test_fine_tuning_on_a_cpu_takes_few_windows_at_once(
    run_cli: Any, tiny: Any, train_tiny: Any, tmp_path: Any, metrics_of: Any
) -> None:
    """1,024 tokens: of windows of 256 four, twice, where the step is the same as of eight; on pairs, half of them.
    Eight windows of 1,024 of a model of 135 M parameters took 11 GB."""
    longer = "model.params.max_seq_len=256"
    train_tiny("source", longer, "trainer.max_steps=1")
    own = [s for s in tiny if not s.startswith(("model.", "tokenizer", "trainer.batch_size", "trainer.max_steps"))]
    tuned = (*own, "model.weights=source", "trainer.max_steps=2")
    outcome = run_cli("train", *tuned, "run_dir=auto")
    assert outcome.status == 0, outcome.err
    assert "steps 2 of 8 windows, 4 at once" in outcome.err
    assert run_cli("train", *tuned, "trainer.batch_size=8", "run_dir=eight").status == 0
    losses = [[float(row["train/loss"]) for row in metrics_of(tmp_path / name)] for name in ("auto", "eight")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_lora_with_muon_is_refused(run_cli: Any, tiny: Any, tiny_run: Any, tmp_path: Any) -> None:
    """Its thin matrices went to AdamW, at `adam_lr`: with `lr` 0.02 and 5.0 the runs were the same."""
    own = [s for s in tiny if not s.startswith(("model.", "tokenizer"))]
    outcome = run_cli("train", *own, f"model.weights={tiny_run}", "adapter=lora", "optimizer=muon", "run_dir=run")
    assert (outcome.status, (tmp_path / "run").exists()) == (2, False)
    assert "adapter=lora does not go with slm.training.optim.muon.Muon" in outcome.err
