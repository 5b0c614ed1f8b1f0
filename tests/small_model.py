"""A model of random weights, large enough that every part shows in its logits, and what a plain pass says of a text."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from slm.generation.language_model import LanguageModel
from slm.models.config import ModelConfig
from slm.models.contract import CausalLM, build_model
from slm.tokenizers.byte import ByteTokenizer


def small_model(
    position: str = "learned", vocab_size: int = 50, max_seq_len: int = 32, dim: int = 32, **transformer: Any
) -> Any:
    config = ModelConfig.from_dict(
        {
            "name": "gpt",
            "params": {"max_seq_len": max_seq_len, "vocab_size": vocab_size},
            "modules": {
                "position_embedding": {"kind": position},
                "transformer": {"dim": dim, "n_layers": 2, "n_heads": 2, **transformer},
            },
        }
    )
    torch.manual_seed(1)
    model = build_model(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def reads_bytes(max_seq_len: int = 128) -> LanguageModel:
    """A token a byte, so that a test can say by itself what is scored."""
    tokenizer = ByteTokenizer()
    return LanguageModel(small_model("rotary", tokenizer.vocab_size, max_seq_len), tokenizer, facts={})


def by_itself(model: CausalLM, context: list[int], continuation: list[int]) -> tuple[list[float], list[bool]]:
    """Log-probability of each token, and whether it is the likeliest, from all logits of its sequence alone."""
    with torch.no_grad():
        logits = model(torch.tensor([[*context, *continuation][:-1]]))[0].double().log_softmax(-1)
    places = range(len(context), len(context) + len(continuation))
    found = [logits[place - 1] for place in places]
    return (
        [float(one[token]) for one, token in zip(found, continuation, strict=True)],
        [int(one.argmax()) == token for one, token in zip(found, continuation, strict=True)],
    )
