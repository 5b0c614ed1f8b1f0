"""`trainer.compile` never fails a run, and renames nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor import compile_fx

RUN = ("trainer.max_steps=3", "model.params.dropout=0.1")

pytestmark = pytest.mark.filterwarnings("default")  # torch's compiler warns of itself, and takes an error for its own


def state_of(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return state


@pytest.mark.nightly
@pytest.mark.parametrize("works", [True, False])
def test_a_run_is_the_same_whether_compilation_works_or_not(
    run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    """The compiler was first called in the first step: its fault ended the run. With ``torch.compile(model)`` keys had
    ``_orig_mod.`` before them. Here the compiler gives the graph as it got it, or fails; the graphs are torch's own."""
    graphs: list[Any] = []

    def compiler(graph: Any, *_: Any, **__: Any) -> Any:
        graphs.append(graph)
        if not works:
            raise RuntimeError("no working C++ compiler\nsecond line")
        return graph

    monkeypatch.setattr(compile_fx, "compile_fx", compiler)
    torch._dynamo.reset()
    outcome = run_cli("train", *tiny, *RUN, "trainer.compile=true", "run_dir=compiled")
    assert outcome.status == 0, outcome.err
    assert graphs
    assert ("torch.compile failed, training goes on without it" in outcome.err) is not works
    assert "second line" not in outcome.err
    assert run_cli("train", *tiny, *RUN, "run_dir=eager").status == 0
    compiled, eager = state_of(tmp_path / "compiled"), state_of(tmp_path / "eager")
    assert list(compiled) == list(eager)
    for name, tensor in eager.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-4, atol=1e-5)


def test_text_is_written_without_compiling_anything(
    run_cli: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample between steps once made the compiler build a graph for every layer, for a minute, and then give up."""
    shapes: list[Any] = []

    def compiler(graph: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        shapes.append([tuple(x.shape) for x in inputs if isinstance(x, torch.Tensor)])
        return graph

    monkeypatch.setattr(compile_fx, "compile_fx", compiler)
    counts = {}
    for sampled in (False, True):
        shapes.clear()
        torch._dynamo.reset()
        callbacks = ("callbacks=default", "callbacks.sample_text.max_new_tokens=5") if sampled else ()
        layers = ("model.modules.transformer.n_layers=3", f"run_dir=compiled{sampled}")
        outcome = run_cli("train", *tiny, *RUN, "trainer.compile=true", *layers, *callbacks)
        assert outcome.status == 0, outcome.err
        counts[sampled] = len(shapes)
    assert (tmp_path / "compiledTrue" / "samples.txt").is_file()
    assert counts[True] == counts[False] < 5, (
        "also one graph for all layers: in training, in validation, of a last batch"
    )
