"""A small GPT-2 in the files that OpenAI released."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

MERGES = ["t h", "th e", "Ġ the"]
N_CTX, N_EMBD, N_LAYER, N_HEAD = 12, 16, 2, 4
VOCAB = [*sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES), "<|endoftext|>"]
"""Sorted, the bytes stand in GPT-2's own order."""


@pytest.fixture(scope="session")
def gpt2_hparams() -> dict[str, int]:
    """What ``hparams.json`` says of it."""
    return {"n_vocab": len(VOCAB), "n_ctx": N_CTX, "n_embd": N_EMBD, "n_head": N_HEAD, "n_layer": N_LAYER}


@pytest.fixture(scope="session")
def gpt2_variables() -> dict[str, np.ndarray[Any, Any]]:
    """Its float32 variables by OpenAI's names, so large that every part shows in the logits."""
    shapes = {"model/wte": (len(VOCAB), N_EMBD), "model/wpe": (N_CTX, N_EMBD), "model/ln_f": (N_EMBD,)}
    for block in (f"model/h{layer}" for layer in range(N_LAYER)):
        shapes |= {f"{block}/ln_1": (N_EMBD,), f"{block}/ln_2": (N_EMBD,)}
        shapes |= {f"{block}/attn/c_attn": (1, N_EMBD, 3 * N_EMBD), f"{block}/attn/c_proj": (1, N_EMBD, N_EMBD)}
        shapes |= {f"{block}/mlp/c_fc": (1, N_EMBD, 4 * N_EMBD), f"{block}/mlp/c_proj": (1, 4 * N_EMBD, N_EMBD)}
    draw = np.random.default_rng(0)
    variables = {}
    for name, shape in shapes.items():
        values = draw.normal(0, 0.3, shape)
        if len(shape) == 1:
            variables[f"{name}/g"] = 1 + values
        elif len(shape) == 2:
            variables[name] = values
        else:
            variables[f"{name}/w"] = values
        if len(shape) != 2:
            variables[f"{name}/b"] = draw.normal(0, 0.3, shape[-1])
    return {name: values.astype(np.float32) for name, values in variables.items()}


@pytest.fixture(scope="session")
def save_tf_checkpoint() -> Callable[[Path, Mapping[str, Any]], None]:
    """``save_tf_checkpoint(folder, {name: array})``: by the `Saver` that OpenAI's were written by, without a GPU."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    v1 = pytest.importorskip("tensorflow", reason="the extra slm[tf] is not installed").compat.v1
    from absl import logging as absl_logging

    # it took pytest's stand-in for stderr, and would close it when Hydra sets up logging in this process
    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

    def save(folder: Path, variables: Mapping[str, Any]) -> None:
        with v1.Graph().as_default(), v1.Session(config=v1.ConfigProto(device_count={"GPU": 0})) as session:
            for name, values in variables.items():
                v1.get_variable(name, initializer=values)
            session.run(v1.global_variables_initializer())
            v1.train.Saver(save_relative_paths=True).save(session, str(folder / "model.ckpt"))

    return save


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
    ids = {token: i for i, token in enumerate(VOCAB)}
    (folder / "encoder.json").write_text(json.dumps(ids), encoding="utf-8")
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    return folder, gpt2_variables
