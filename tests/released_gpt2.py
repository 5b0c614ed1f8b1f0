"""A small GPT-2 in the files that OpenAI released."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

MERGES = ["t h", "th e", "Ġ the"]
VOCAB = [*sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES), "<|endoftext|>"]
"""Sorted, the bytes stand in GPT-2's own order."""
Variables = dict[str, np.ndarray[Any, Any]]


def random_variables(hparams: Mapping[str, int]) -> Variables:
    """Float32 variables by OpenAI's names, so large that every part shows in the logits."""
    n_embd = hparams["n_embd"]
    shapes = {"model/wte": (hparams["n_vocab"], n_embd), "model/wpe": (hparams["n_ctx"], n_embd)}
    shapes |= {"model/ln_f": (n_embd,)}
    for block in (f"model/h{layer}" for layer in range(hparams["n_layer"])):
        shapes |= {f"{block}/ln_1": (n_embd,), f"{block}/ln_2": (n_embd,)}
        shapes |= {f"{block}/attn/c_attn": (1, n_embd, 3 * n_embd), f"{block}/attn/c_proj": (1, n_embd, n_embd)}
        shapes |= {f"{block}/mlp/c_fc": (1, n_embd, 4 * n_embd), f"{block}/mlp/c_proj": (1, 4 * n_embd, n_embd)}
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


def write_tf_checkpoint(folder: Path, variables: Mapping[str, Any]) -> None:
    """By the `Saver` that OpenAI's were written by, without a GPU."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow
    from absl import logging as absl_logging

    # it took pytest's stand-in for stderr, and would close it when Hydra sets up logging in this process
    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__
    v1 = tensorflow.compat.v1
    with v1.Graph().as_default(), v1.Session(config=v1.ConfigProto(device_count={"GPU": 0})) as session:
        for name, values in variables.items():
            v1.get_variable(name, initializer=values)
        session.run(v1.global_variables_initializer())
        v1.train.Saver(save_relative_paths=True).save(session, str(folder / "model.ckpt"))


def write_vocabulary(folder: Path) -> None:
    """``encoder.json`` and ``vocab.bpe``."""
    ids = {token: i for i, token in enumerate(VOCAB)}
    (folder / "encoder.json").write_text(json.dumps(ids), encoding="utf-8")
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
