"""What needs a GPU; without one each test says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what lies in this folder where there is no GPU."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def _exact_products() -> Any:
    """No TF32 in fp32 products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def train_on_gpu(train_tiny: Callable[..., Path]) -> Callable[..., Path]:
    """As `train_tiny`, on the GPU."""
    return lambda name, *changes: train_tiny(name, "trainer.accelerator=gpu", *changes)
