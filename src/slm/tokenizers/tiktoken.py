"""OpenAI's vocabularies, GPT-2's first, through the `tiktoken` package."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tiktoken
import tokenizers
from tokenizers import models

from slm.errors import UserError, did_you_mean
from slm.registry import register_tokenizer
from slm.tokenizers.base import ids_up_to
from slm.tokenizers.pre_tokenizer import SPLITS
from slm.tokenizers.rust_regex import check_export, rust_regex
from slm.tokenizers.spelling import EOS_TOKEN, byte_level, spelt
from slm.tokenizers.stream import ByteTableTokenizer

_PIECE = 1 << 15  # characters that are encoded at a time: what this takes stays in the processor's cache
_CUT = re.compile(r"(?<=[^\W_]) ")  # no encoding's pattern joins a letter or a digit to the space after it

_SPLITS = {**dict.fromkeys(("gpt2", "r50k_base", "p50k_base"), "gpt2"), "cl100k_base": "llama3"}  # cut texts alike


@register_tokenizer("tiktoken")
class TiktokenTokenizer(ByteTableTokenizer):
    """A given byte-level BPE vocabulary, whose special tokens hold `<|endoftext|>`; it has no padding."""

    kind = "tiktoken"
    pad_id = None

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self._encoding = encoding
        self.vocab_size = ids_up_to(encoding.max_token_value)
        self.eos_id = encoding._special_tokens[EOS_TOKEN]
        self._token_bytes = [b""] * self.vocab_size  # special ids, and the gaps some encodings have, stay empty
        for token, token_id in encoding._mergeable_ranks.items():
            self._token_bytes[token_id] = token

    @classmethod
    def create(cls, texts: Iterable[str], *, encoding: str = "r50k_base") -> TiktokenTokenizer:
        """The encoding of that name, from tiktoken's cache or else the network; `texts` is not read."""
        known = tiktoken.list_encoding_names()
        if encoding not in known:
            raise UserError(
                f"tokenizer.encoding '{encoding}' does not exist{did_you_mean(encoding, known)} "
                f"(known: {', '.join(known)})"
            )
        try:
            return cls(tiktoken.get_encoding(encoding))
        except (OSError, ValueError) as error:  # no network, a refused request; a file that is not what it should be
            raise UserError(
                f"tokenizer.encoding '{encoding}' is not in tiktoken's cache and cannot be downloaded "
                f"({type(error).__name__}): go online once, or set TIKTOKEN_CACHE_DIR to a folder that holds it"
            ) from error

    @property
    def cuts(self) -> tuple[str, ...] | None:
        split = _SPLITS.get(self._encoding.name)
        return None if split is None else (SPLITS[split],)

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._encoding.encode_ordinary_batch(list(texts))

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        encode = self._encoding.encode_to_numpy
        return [np.concatenate([encode(piece, disallowed_special=()) for piece in _pieces(text)]) for text in texts]

    def spells_exactly(self) -> bool:
        return True  # no encoding has a pattern that leaves anything out

    def to_huggingface(self) -> tokenizers.Tokenizer:
        ranks, special = self._encoding._mergeable_ranks, self._encoding._special_tokens
        vocab = {spelt(token): rank for token, rank in ranks.items()}
        if clash := vocab.keys() & special.keys():
            raise UserError(
                f"tokenizer.encoding '{self._encoding.name}' cannot be exported to Hugging Face's form: its special "
                f"token {min(clash)!r} is spelt like an ordinary one; give it another name"
            )
        merges = [(spelt(left), spelt(right)) for left, right in merges_of(ranks)]
        # A piece of text that is a token is that token, merges or no: so tiktoken does it.
        model = models.BPE(vocab={**vocab, **special}, merges=merges, ignore_merges=True)
        backend = byte_level(model, rust_regex(self._encoding._pat_str, "tokenizer.encoding", spell_sets=False))
        backend.add_special_tokens(sorted(special, key=special.__getitem__))
        check_export(self, backend, "tokenizer.encoding")
        return backend

    def state(self) -> dict[str, Any]:
        """The whole encoding: a saved tokenizer needs no download. tiktoken's README, too, reads these attributes."""
        ranks = self._encoding._mergeable_ranks
        return {
            "encoding": self._encoding.name,
            "pattern": self._encoding._pat_str,
            "ranks": {base64.b64encode(token).decode(): rank for token, rank in ranks.items()},
            "special_tokens": self._encoding._special_tokens,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TiktokenTokenizer:
        ranks = {base64.b64decode(token): rank for token, rank in state["ranks"].items()}
        name, pattern, special_tokens = state["encoding"], state["pattern"], state["special_tokens"]
        return cls(tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special_tokens))


def _pieces(text: str) -> Iterator[str]:
    """At least one; their ids together are those of the whole."""
    start = 0
    while cut := _CUT.search(text, start + _PIECE):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def merges_of(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair each token of two bytes or more is merged from, in the order of the ranks, all that tiktoken keeps.

    Until a token is made no merge reaches over its ends, so in every text it is made as its own bytes alone are. If
    those do not end in it, it is made in no text, has no pair, and can only be a whole piece (`ignore_merges`).
    """
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            known = [(ranks[pair], i) for i in range(len(parts) - 1) if (pair := parts[i] + parts[i + 1]) in ranks]
            if not known:
                break
            _, i = min(known)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges
