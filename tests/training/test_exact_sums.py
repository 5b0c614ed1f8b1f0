"""Sums on a device without float64, as Apple's GPUs are: exact all the same, and never asked for more."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slm.training.figures import ExactSum, joined
from slm.training.run import random_state
from slm.training.run.checkpoint_io import HostCopy


class NoFloat64(TorchDispatchMode):
    """Refuses what an Apple GPU refuses, in its words, for every tensor there is: none is needed on the host either."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves((args, kwargs, found))):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return found


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[str, ...], tiny_run: Path) -> dict[str, list[str]]:
    """Command lines by what they train: whole windows, conversations, pairs."""
    folder = tmp_path_factory.mktemp("tasks")
    talks = [{"prompt": f"p{i}", "response": "the cat" + "s" * (i % 4)} for i in range(20)]
    pairs = [{"prompt": f"p{i}", "chosen": "the cat" + "s" * (i % 4), "rejected": "dog"} for i in range(20)]
    for name, records in (("talks", talks), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    template = folder / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}:{% endfor %}")
    kept = [s for s in tiny if not s.startswith(("model.", "data", "tokenizer", "callbacks"))]
    tuned = [*kept, f"model.weights={tiny_run}", "data.val_fraction=0.2", f"task.template_file={template}"]
    return {
        "pretrain": [*tiny],
        "muon": [*(s for s in tiny if not s.startswith("optimizer.")), "optimizer=muon"],
        "sft": [*tuned, "task=sft", f"data.path={folder / 'talks.jsonl'}", "task.template=hf", "task.answers=2"],
        "dpo": [*tuned, "task=dpo", f"data.path={folder / 'pairs.jsonl'}"],
        "kto": [*tuned, "task=kto", f"data.path={folder / 'pairs.jsonl'}"],
    }


@pytest.mark.nightly
@pytest.mark.parametrize("task", ["pretrain", "muon", "sft", "dpo", "kto"])
def test_a_run_asks_for_no_float64(invoke: Any, tasks: dict[str, list[str]], task: str, tmp_path: Path) -> None:
    """`accelerator=auto` takes an Apple GPU, and runs died there in step 1: steps, validation and its sums, pairs and
    what the reference thinks of them, samples, answers, a checkpoint and going on from it."""
    command = [
        "train",
        *tasks[task],
        "trainer.batch_size=3",
        "trainer.global_batch_size=6",
        "callbacks=default",
        "run_dir=run",
    ]
    with NoFloat64():
        outcome = invoke(tmp_path, *command, "stop_after=3")
        assert outcome.status == 0, outcome.err
        outcome = invoke(tmp_path, "train", "resume=run")
    assert outcome.status == 0, outcome.err
    assert json.loads((tmp_path / "run/summary.json").read_text())["step"] == 6


def test_the_stand_in_refuses() -> None:
    with NoFloat64(), pytest.raises(TypeError, match="float64"):
        torch.ones(2).double()
    with NoFloat64(), pytest.raises(TypeError, match="float64"):
        torch.tensor(1.0, dtype=torch.float64)


@pytest.mark.parametrize("rows_at_once", [1, 7, 64])
def test_a_sum_is_good_to_twice_the_precision(rows_at_once: int) -> None:
    """Of 10,000 terms as losses of batches are: fp32 is off in the sixth digit, this in none of the first twelve. The
    right sum is that of fractions."""
    draw = np.random.default_rng(0)
    terms = (draw.random((10_000, 3)) * 10.0 ** draw.integers(-2, 5, size=(10_000, 3))).astype(np.float32)
    right = [float(sum(map(Fraction, column.tolist()), Fraction())) for column in terms.T]
    plain, exact = torch.zeros(3), ExactSum(3)
    for rows in torch.from_numpy(terms).split(rows_at_once):
        exact.add(rows)
        plain = plain + rows.sum(dim=0)
    found = joined(*exact.take().tolist())
    assert list(found) == pytest.approx(right, rel=1e-12)
    assert all(abs(plain[i].item() - right[i]) > 1e-9 * right[i] for i in range(3))
    assert exact.take().tolist() == [[0.0] * 3] * 2, "it began anew"


def test_what_is_not_finite_stays_so() -> None:
    for bad in (float("inf"), float("nan")):
        total = ExactSum()
        for value in (1.0, bad, 2.0):
            total.add(torch.tensor([[value]]))
        assert str(joined(*total.take().tolist())) == f"({bad},)"


def test_only_cuda_copies_behind_the_hosts_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that an Apple GPU has not finished was written to disk: nothing waits for that device before it is."""
    asked: list[bool] = []
    plain = Tensor.copy_
    monkeypatch.setattr(Tensor, "copy_", lambda to, of, non_blocking: asked.append(non_blocking) or plain(to, of))  # type: ignore[func-returns-value]
    assert torch.equal(HostCopy().take({"w": torch.ones(2)})["w"], torch.ones(2))
    assert asked == [False]


def test_an_apple_gpus_random_state_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dropout went on from another state after a resume."""
    states = [torch.tensor([7], dtype=torch.uint8)]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: states[-1])
    monkeypatch.setattr(torch.mps, "set_rng_state", states.append)
    state = random_state.capture()
    states.append(torch.tensor([8], dtype=torch.uint8))
    random_state.restore(state)
    assert states[-1].tolist() == [7]
    random_state.restore({**state, "mps": None})  # a checkpoint of another machine
