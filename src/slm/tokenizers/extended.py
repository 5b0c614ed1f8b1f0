"""A vocabulary with further special tokens at its end and a chat template, as fine-tuning on conversations needs."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers

from slm.errors import UserError
from slm.tokenizers.base import ADDED_TOKENS, StreamDecoder, Tokenizer
from slm.tokenizers.huggingface import HuggingFaceTokenizer, RenderedEncoder
from slm.tokenizers.text_bytes import PlacedIds


class ExtendedTokenizer(Tokenizer):
    """Another tokenizer's ids, one more for each of `added`, perhaps none; saved as the other, which encodes texts."""

    def __init__(
        self,
        inner: Tokenizer,
        added: Sequence[str],
        chat_template: str | None,
        also_ends: Sequence[int] = (),
        template_args: Mapping[str, Any] | None = None,
    ) -> None:
        self.inner = inner
        self.kind = inner.kind  # type: ignore[misc]  # the other's, for its class is what reads the state
        self.added = list(added)
        self.chat_template = chat_template
        self.template_args = dict(template_args or {})
        self.also_ends = tuple(i for i in dict.fromkeys((*inner.also_ends, *also_ends)) if i != inner.eos_id)
        self.vocab_size = inner.vocab_size + len(self.added)
        self.eos_id, self.pad_id, self.begin_ids = inner.eos_id, inner.pad_id, inner.begin_ids
        self.published_ids, self.special_names = inner.published_ids, inner.special_names

    def with_end_of_text(self, token: str) -> Tokenizer:
        ends = (self.eos_id, *self.also_ends)
        return ExtendedTokenizer(
            self.inner.with_end_of_text(token), self.added, self.chat_template, ends, self.template_args
        )

    @property
    def cuts(self) -> tuple[str, ...] | None:
        return self.inner.cuts

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self.inner.encode_batch(texts)

    @functools.cached_property
    def bytes_of_id(self) -> np.ndarray:
        return np.concatenate([self.inner.bytes_of_id, np.zeros(len(self.added), dtype=np.int64)])

    def bytes_of(self, token_id: int) -> bytes:
        return self.inner.bytes_of(token_id) if token_id < self.inner.vocab_size else b""

    def spells_exactly(self) -> bool:
        return self.inner.spells_exactly()

    def text_bytes(self, text: str, ids: np.ndarray) -> np.ndarray:
        return self.inner.text_bytes(text, ids)

    def decode(self, ids: Iterable[int]) -> str:
        return self.inner.decode([i for i in self.check_ids(ids) if i < self.inner.vocab_size])

    def stream_decoder(self) -> StreamDecoder:
        return _WithoutAdded(self.inner, self.inner.stream_decoder())

    def decoder_after(self, ids: Sequence[int]) -> StreamDecoder:
        known = [i if i < self.inner.vocab_size else self.eos_id for i in ids]  # an added id is a special one to it
        return _WithoutAdded(self.inner, self.inner.decoder_after(known))

    @functools.cached_property
    def special_tokens(self) -> Mapping[str, int]:
        added = {token: self.inner.vocab_size + i for i, token in enumerate(self.added)}
        return {**self.inner.special_tokens, **added}

    def encode_parts(self, parts: Sequence[str]) -> PlacedIds:
        if not self.added:
            return self.inner.encode_parts(parts)
        return self._rendered.encode(parts) if self._rendered else super().encode_parts(parts)

    @functools.cached_property
    def _rendered(self) -> RenderedEncoder | None:
        known = isinstance(self.inner, HuggingFaceTokenizer)
        return RenderedEncoder(self.inner.to_huggingface(), self.special_tokens) if known else None

    def _ends(self, text: str, ids: Sequence[int]) -> list[int]:
        return self.inner._ends(text, ids)

    def to_huggingface(self) -> tokenizers.Tokenizer:
        backend = self.inner.to_huggingface()
        backend.add_special_tokens(self.added)
        for token in self.added:
            theirs, ours = backend.token_to_id(token), self.special_tokens[token]
            if theirs != ours:  # the vocabulary has gaps, or holds it
                raise UserError(
                    f"tokenizer={self.kind} with '{token}' cannot be exported to Hugging Face's form: its id is "
                    f"{ours} here and would be {theirs} there; task.template=alpaca adds no tokens"
                )
        return backend

    def state(self) -> dict[str, Any]:
        extras: dict[str, Any] = {"chat_template": self.chat_template, "template_args": self.template_args}
        extras["also_ends"] = list(self.also_ends)
        said = {key: value for key, value in extras.items() if value}
        return {**self.inner.state(), **said, ADDED_TOKENS: self.added}


class _WithoutAdded(StreamDecoder):
    def __init__(self, inner: Tokenizer, decoder: StreamDecoder) -> None:
        self._vocab_size = inner.vocab_size
        self._decoder = decoder

    def push(self, token_id: int) -> str:
        return self._decoder.push(token_id) if token_id < self._vocab_size else ""

    def flush(self) -> str:
        return self._decoder.flush()
