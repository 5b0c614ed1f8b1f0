"""GPT-2's vocabulary as OpenAI published it: ``encoder.json`` and ``vocab.bpe``."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from slm.errors import UserError
from slm.files.reading import bounded_text, json_text
from slm.tokenizers.rust_errors import panics_refused

ENCODER_FILE = "encoder.json"
MERGES_FILE = "vocab.bpe"
EOS_TOKEN = "<|endoftext|>"
_LONGEST_MERGES = 4 << 20
"""Bytes; GPT-2's take 456 KB. A merge is four bytes of text and three hundred of memory."""


def has_gpt2_files(folder: Path) -> bool:
    """Whether both files are there."""
    return all((folder / name).is_file() for name in (ENCODER_FILE, MERGES_FILE))


def read_gpt2_files(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of the two files (`get_encoder` in openai/gpt-2 `src/encoder.py`).

    Raises:
        UserError: they are not what their names say, or do not belong together.
    """
    try:
        vocab: dict[str, int] = json.loads(json_text(folder / ENCODER_FILE))
        _, *lines = bounded_text(folder / MERGES_FILE, _LONGEST_MERGES).split("\n")  # the first is a version
        merges = [(left, right) for left, right in (line.split(" ") for line in lines if line)]
        with panics_refused():
            backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    except UserError:
        raise
    except Exception as error:  # what the library raises has no narrower class
        raise UserError(
            f"{folder / ENCODER_FILE} and {MERGES_FILE} are not GPT-2's vocabulary and merges ({error}); "
            "give both as OpenAI published them, or a folder that holds tokenizer.json"
        ) from error
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if EOS_TOKEN in vocab:
        backend.add_special_tokens([EOS_TOKEN])
    return backend
