"""Byte-level BPE, trained on the data (Sennrich et al. 2016, arXiv:1508.07909; bytes as in GPT-2)."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable
from typing import Annotated, Literal

import tokenizers
from annotated_types import Ge
from tokenizers import models, pre_tokenizers, trainers

from slm.errors import UserError
from slm.registry import register_tokenizer
from slm.tokenizers.huggingface import HuggingFaceTokenizer
from slm.tokenizers.pre_tokenizer import SPLITS
from slm.tokenizers.spelling import EOS_TOKEN, PAD_TOKEN, byte_level

MIN_VOCAB_SIZE = 256 + 2
CHUNK_CHARS = 1024
MIN_BUDGET_BYTES = 4 * CHUNK_CHARS  # a chunk always fits: a character is at most 4 bytes of UTF-8


@register_tokenizer("bpe")
class BpeTokenizer(HuggingFaceTokenizer):
    """All 256 bytes and the merges learnt from the data, so any text can be written."""

    kind = "bpe"

    @classmethod
    def create(
        cls,
        texts: Iterable[str],
        *,
        split: Literal["gpt2", "qwen2", "llama3", "lines"] = "qwen2",
        vocab_size: Annotated[int, Ge(MIN_VOCAB_SIZE)] = 4096,
        min_frequency: Annotated[int, Ge(1)] = 2,
        train_bytes: Annotated[int, Ge(MIN_BUDGET_BYTES)] = 4_000_000,
    ) -> BpeTokenizer:
        """Train on an even sample of `texts`, at most `train_bytes`, cut as `SPLITS` says; `vocab_size` counts special
        ids and the 256 bytes, and is not reached by text with too few pairs that are seen `min_frequency` times."""
        sample = even_sample(texts, train_bytes)
        if not sample:
            raise UserError("tokenizer=bpe got no text to train on: check that the data is not empty")
        backend = byte_level(models.BPE(), tokenizers.Regex(SPLITS[split]))
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=[EOS_TOKEN, PAD_TOKEN],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(sample, trainer)
        return cls(backend, EOS_TOKEN, PAD_TOKEN)


def even_sample(texts: Iterable[str], budget_bytes: int) -> list[str]:
    """Chunks of `texts` in their order, at most `budget_bytes` (>= `MIN_BUDGET_BYTES`) of UTF-8. Each draws a priority
    (seeded), and the lowest that fit are kept, so that all parts have the same chance."""
    priorities = random.Random(0)
    kept: list[tuple[float, int, str, int]] = []  # a heap: (-priority, position, chunk, bytes)
    kept_bytes = 0
    # the word cut at a seam is noise beside the hundreds that are not
    chunks = (text[start : start + CHUNK_CHARS] for text in texts for start in range(0, len(text), CHUNK_CHARS))
    for position, chunk in enumerate(chunks):
        size = len(chunk.encode())
        heapq.heappush(kept, (-priorities.random(), position, chunk, size))
        kept_bytes += size
        while kept_bytes > budget_bytes:
            kept_bytes -= heapq.heappop(kept)[3]
    return [chunk for _, chunk in sorted((position, chunk) for _, position, chunk, _ in kept)]
