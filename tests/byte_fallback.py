"""A vocabulary à la SentencePiece: bytes for what it lacks."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tokenizers import Tokenizer, models

BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


def with_byte_fallback(trained: Tokenizer, specials: Sequence[str]) -> Tokenizer:
    """The vocabulary of a `trained` BPE after `specials`, ``<unk>`` among them, and the bytes; its merges."""
    model = json.loads(trained.to_str())["model"]
    pieces = dict.fromkeys([*specials, *BYTES, *model["vocab"]])
    return Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
