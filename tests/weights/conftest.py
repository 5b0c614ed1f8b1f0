"""A small GPT-2 in the files that OpenAI released."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from released_gpt2 import VOCAB, random_variables, write_tf_checkpoint, write_vocabulary


@pytest.fixture(scope="session")
def gpt2_hparams() -> dict[str, int]:
    """What ``hparams.json`` says of it."""
    return {"n_vocab": len(VOCAB), "n_ctx": 12, "n_embd": 16, "n_head": 4, "n_layer": 2}


@pytest.fixture(scope="session")
def gpt2_variables(gpt2_hparams: dict[str, int]) -> dict[str, np.ndarray[Any, Any]]:
    """Its float32 variables by OpenAI's names, so large that every part shows in the logits."""
    return random_variables(gpt2_hparams)


@pytest.fixture(scope="session")
def save_tf_checkpoint() -> Callable[[Path, Mapping[str, Any]], None]:
    """``save_tf_checkpoint(folder, {name: array})``."""
    pytest.importorskip("tensorflow", reason="the extra slm[tf] is not installed")
    return write_tf_checkpoint


@pytest.fixture(scope="session")
def gpt2_tf_folder(
    tmp_path_factory: pytest.TempPathFactory,
    save_tf_checkpoint: Callable[[Path, Mapping[str, Any]], None],
    gpt2_variables: dict[str, np.ndarray[Any, Any]],
    gpt2_hparams: dict[str, int],
) -> tuple[Path, dict[str, np.ndarray[Any, Any]]]:
    """(folder as OpenAI released it, its variables), to be read only."""
    folder = tmp_path_factory.mktemp("gpt2_tf")
    save_tf_checkpoint(folder, gpt2_variables)
    (folder / "hparams.json").write_text(json.dumps(gpt2_hparams), encoding="utf-8")
    write_vocabulary(folder)
    return folder, gpt2_variables
