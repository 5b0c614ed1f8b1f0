"""Lightning is imported without the packages that it draws in, and they are there for those who ask."""

from __future__ import annotations

import subprocess
import sys

import pytest

_MODULES = ("backends.registry", "eval_frame", "utils", "config", "variables.lists")
_LEAN = "from slm.training.lean_lightning import import_lightning; import_lightning(); import sys\n"


def _python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", _LEAN + code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_lightning_comes_without_what_it_does_not_need() -> None:
    drawn_in = ("torch._dynamo.utils", "sympy", "scipy", "transformers", "matplotlib")
    assert _python(f"import pytorch_lightning as pl; print(*[n for n in {drawn_in} if n in sys.modules], pl.Trainer)")[
        0
    ].startswith("<class")


@pytest.mark.nightly
def test_torchmetrics_is_whole_for_those_who_ask() -> None:
    """Metrics of every kind, one class each, however it is come by."""
    code = """
from pytorch_lightning.trainer.connectors.logger_connector.result import _ResultMetric
import torchmetrics, torchmetrics.text, torch
print(torchmetrics.Accuracy.__name__, torchmetrics.text.Perplexity.__name__, torchmetrics.__version__ != "")
print(issubclass(_ResultMetric, torchmetrics.Metric), torchmetrics.Metric is torchmetrics.metric.Metric)
metric = torchmetrics.MeanMetric(); metric.update(torch.tensor([1.0, 2.0])); print(float(metric.compute()))
"""
    assert _python(code) == ["Accuracy", "Perplexity", "True", "True", "True", "1.5"]


@pytest.mark.nightly
def test_what_is_compiled_is_known_to_be() -> None:
    """Fabric's and Lightning's own question, with the compiler that came later."""
    code = """
import torch
from lightning_fabric.wrappers import OptimizedModule, _unwrap_compiled
plain = torch.nn.Linear(2, 2)
print(isinstance(plain, OptimizedModule))
compiled = torch.compile(plain, backend="eager")
print(isinstance(compiled, OptimizedModule), _unwrap_compiled(compiled)[0] is plain)
print(compiled(torch.zeros(1, 2)).shape[1], torch._dynamo.OptimizedModule is type(compiled))
"""
    assert _python(code) == ["False", "True", "True", "2", "True"]


@pytest.mark.nightly
def test_an_optimizer_steps_before_and_after_the_compiler_came() -> None:
    code = """
import torch
weight = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.AdamW([weight], lr=0.5, weight_decay=0)
def step():
    optimizer.zero_grad()
    weight.sum().backward()
    optimizer.step()
    return f"{float(weight[0]):.3f}"
print(step(), "sympy" in sys.modules)
double = torch.compile(lambda x: 2 * x, backend="eager")
print(float(double(torch.tensor(2.0))), "sympy" in sys.modules, step())
"""
    assert _python(code) == ["0.500", "False", "4.0", "True", "0.000"]


@pytest.mark.nightly
@pytest.mark.parametrize("asked", _MODULES)
def test_a_module_of_the_compiler_is_itself_whichever_is_imported_first(asked: str) -> None:
    code = f"""
import torch._dynamo.{asked} as found
import torch, torch._dynamo
spec = found.__spec__
print(found is sys.modules[found.__name__], spec.name == found.__name__, spec.origin == found.__file__)
print(type(torch._dynamo).__name__, torch._dynamo.eval_frame is sys.modules["torch._dynamo.eval_frame"])
print(torch.compile(torch.nn.Linear(2, 3), backend="eager")(torch.zeros(1, 2)).shape[1])
"""
    assert _python(code) == ["True", "True", "True", "module", "True", "3"]


@pytest.mark.nightly
def test_a_name_of_the_compiler_is_asked_for_first() -> None:
    """As `init_process_group` asks: the package runs, its first module was taken for the first that anybody imports,
    and every run of several processes ended there."""
    code = "import torch; print(torch._dynamo.trace_rules.__name__, type(torch._dynamo).__name__)"
    assert _python(code) == ["torch._dynamo.trace_rules", "module"]


@pytest.mark.nightly
@pytest.mark.parametrize("first", ["matplotlib", "torchmetrics", "torch._dynamo"])
def test_what_was_imported_before_stays(first: str) -> None:
    """Also plots of metrics, which torchmetrics has where it finds matplotlib."""
    if first != "torch._dynamo":
        pytest.importorskip("matplotlib", reason="without matplotlib there are no plots to keep")
    code = "import torchmetrics.utilities.plot as plot; print(bool(plot._MATPLOTLIB_AVAILABLE))"
    before = f"import {first}, sys; before = sys.modules[{first!r}]\n"
    after = f"\nprint(sys.modules[{first!r}] is before)"
    done = subprocess.run(
        [sys.executable, "-c", before + _LEAN + code + after], capture_output=True, text=True, check=True
    )
    plots, stayed = done.stdout.split()
    assert stayed == "True"
    assert plots == "True" or first == "torch._dynamo"
