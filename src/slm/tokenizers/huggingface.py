"""A `tokenizers.Tokenizer` held to slm's contract: shared by those trained here and those given."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import tokenizers

from slm.errors import UserError
from slm.tokenizers.base import StreamDecoder, Tokenizer, breakdowns_refused, ids_up_to, special_tokens_of
from slm.tokenizers.pre_tokenizer import patterns_of
from slm.tokenizers.spelling import CHARACTERS, bytes_of_tokens, is_byte_level, keeps_text
from slm.tokenizers.stream import ByteTableTokenizer, PrefixStreamDecoder
from slm.tokenizers.text_bytes import PlacedIds, by_ends, stretched

_EXTRAS = ("begin_ids", "special_names", "chat_template", "also_ends", "published_ids")  # saved if they say anything
_MARK = "\ufdd2"  # a Unicode noncharacter: no text holds one
Self = TypeVar("Self", bound="HuggingFaceTokenizer")


class HuggingFaceTokenizer(ByteTableTokenizer):
    """Text to ids by the Rust library, whose `backend` is taken over; ids to text by exact bytes if it is byte-level.
    Without `begin_ids` they are what the backend puts there. A `pad_token` that ends texts is none."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        eos_token: str,
        pad_token: str | None = None,
        *,
        begin_ids: Sequence[int] | None = None,
        special_names: Mapping[str, str] | None = None,
        chat_template: str | None = None,
        also_ends: Iterable[int] = (),
        published_ids: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.published_ids = published_ids or {}
        self._eos_token = eos_token
        self._pad_token = pad_token if pad_token != eos_token else None
        self.special_names = dict(special_names or {})
        self.chat_template = chat_template
        backend.no_truncation()
        backend.no_padding()
        ends = (self._eos_token, self._pad_token, self.special_names.get("eos_token"))
        special = special_tokens_of(backend)  # they keep their properties; some files list ends as ordinary tokens
        backend.add_special_tokens([token for token in ends if token is not None and token not in special])
        backend.encode_special_tokens = True  # tokenizer.json does not hold this
        self._backend = backend
        self.begin_ids = _ids_in_front(backend) if begin_ids is None else tuple(begin_ids)
        self._post_processor = backend.post_processor
        backend.post_processor = None  # GPT-2's takes spaces off the places of tokens
        id_of = backend.get_vocab(with_added_tokens=True)
        self.vocab_size = ids_up_to(max(id_of.values()))
        self.eos_id = id_of[eos_token]
        self.also_ends = tuple(i for i in also_ends if 0 <= i < self.vocab_size and i != self.eos_id)
        self.pad_id = None if self._pad_token is None else id_of[self._pad_token]
        self._is_byte_level = is_byte_level(backend)
        self._token_bytes = bytes_of_tokens(backend, self.vocab_size)

    def with_end_of_text(self, token: str) -> Tokenizer:
        if self._backend.token_to_id(token) is None:
            raise UserError(f"eos_token: the vocabulary has no token {token!r}; name one of its special tokens")
        ends = [self.eos_id, *self.also_ends]
        names = {"eos_token": self._eos_token, **self.special_names}
        return self.from_state({**self.state(), "eos_token": token, "also_ends": ends, "special_names": names})

    @property
    def cuts(self) -> tuple[str, ...] | None:
        return patterns_of(self._backend) if self._is_byte_level else None

    def to_huggingface(self) -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_str(self._to_str())

    def _to_str(self) -> str:
        self._backend.post_processor = self._post_processor
        try:
            return self._backend.to_str()
        finally:
            self._backend.post_processor = None

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        with breakdowns_refused():
            found = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def encode_parts(self, parts: Sequence[str]) -> PlacedIds:
        if any(self.special_pattern.search(text) for text in parts[::2]):
            return self._rendered.encode(parts)
        self._backend.encode_special_tokens = False  # a copy of a large vocabulary would take a second
        try:
            with breakdowns_refused():
                encoding = self._backend.encode("".join(parts), add_special_tokens=False)
        finally:
            self._backend.encode_special_tokens = True
        return PlacedIds(encoding.ids, [start for start, _ in encoding.offsets], [end for _, end in encoding.offsets])

    @functools.cached_property
    def _rendered(self) -> RenderedEncoder:
        return RenderedEncoder(self._backend, self.special_tokens)

    @functools.cached_property
    def special_tokens(self) -> Mapping[str, int]:
        return special_tokens_of(self._backend)

    def decode(self, ids: Iterable[int]) -> str:
        if self._is_byte_level:
            return super().decode(ids)
        with breakdowns_refused():
            return self._backend.decode(self.check_ids(ids), skip_special_tokens=True)

    @functools.cached_property
    def _keeps_text(self) -> bool:
        return keeps_text(self._backend)

    def spells_exactly(self) -> bool:
        if not (self._is_byte_level and self._keeps_text):
            return False  # nor if it lacks a byte: SmolLM2's has no U+0004, say, and drops it without a word
        return all(self._backend.token_to_id(character) is not None for character in CHARACTERS)

    def text_bytes(self, text: str, ids: np.ndarray) -> np.ndarray:
        found, size = self.bytes_of_id[ids], len(text.encode())
        too_many = int(found.sum()) - size
        if too_many == 1 and self._keeps_text and not self._is_byte_level:
            found[0] -= 1  # the space that this vocabulary puts before every text
            return found
        if too_many == 0 and (self._keeps_text or self._spells(ids, text)):
            return found
        with breakdowns_refused():
            encoding = self._backend.encode(text, add_special_tokens=False)
        if encoding.ids != ids.tolist():  # it was encoded beside other text
            return stretched(found, size)
        return by_ends(text, [end for _, end in encoding.offsets], found)

    def _spells(self, ids: np.ndarray, text: str) -> bool:
        return self._is_byte_level and b"".join([self._token_bytes[i] for i in ids.tolist()]) == text.encode()

    def stream_decoder(self) -> StreamDecoder:
        return self.decoder_after(())

    def decoder_after(self, ids: Sequence[int]) -> StreamDecoder:
        if self._is_byte_level:
            return super().stream_decoder()
        # In a vocabulary with byte fallback a byte that no UTF-8 holds unsettles all text, since a run of byte tokens
        # decodes to characters only if the whole run is valid; elsewhere any id that has text.
        no_byte = self._backend.token_to_id("<0xFF>")
        unsettling_id = self._id_with_text() if no_byte is None else no_byte
        return PrefixStreamDecoder(self, unsettling_id, self._context(ids))

    def _context(self, ids: Sequence[int]) -> list[int]:
        """Those of `ids` on which the text of later ones depends."""
        specials = frozenset(self.special_tokens.values())
        last = max((place for place, token_id in enumerate(ids) if token_id in specials), default=-1)
        behind = list(ids[last + 1 :])
        return behind if behind or last < 0 or self._begins_anew else [self._id_with_text()]

    @functools.cached_property
    def _begins_anew(self) -> bool:
        """Whether what follows a special token is encoded as a text of its own is."""
        spelling = next(iter(self.special_tokens))
        return self.encode_parts(["", spelling, "a"]).ids[1:] == self.encode("a")

    def _id_with_text(self) -> int:
        return next(i for i in range(self.vocab_size) if self.decode([i]).strip())

    def state(self) -> dict[str, Any]:
        tokens = {"eos_token": self._eos_token, "pad_token": self._pad_token}
        extras = {name: getattr(self, name) for name in _EXTRAS if getattr(self, name)}
        return {"tokenizer": json.loads(self._to_str()), **tokens, **extras}

    @classmethod
    def from_state(cls: type[Self], state: dict[str, Any]) -> Self:
        # without begin_ids nothing stood before the texts of its models, whatever the backend would add
        backend = tokenizers.Tokenizer.from_str(json.dumps(state["tokenizer"]))
        extras = {"begin_ids": (), **{name: state[name] for name in _EXTRAS if name in state}}
        return cls(backend, state["eos_token"], state["pad_token"], **extras)


def _ids_in_front(backend: tokenizers.Tokenizer) -> tuple[int, ...]:
    """What the post-processor puts before a text."""
    if backend.post_processor is None:
        return ()
    for text in ("a", "0", " "):  # any that is not lost
        encoding = backend.encode(text, add_special_tokens=True)
        if 0 in encoding.sequence_ids:  # 0 is the text, None what was added
            return tuple(encoding.ids[: encoding.sequence_ids.index(0)])
    return ()


class RenderedEncoder:
    """A copy of a vocabulary in which special tokens, perhaps further ones, are spelt as no text is: what spells one
    is text. All else is as the library does it: spaces that a special token takes, what a text begins with."""

    def __init__(self, backend: tokenizers.Tokenizer, special_tokens: Mapping[str, int]) -> None:
        state = json.loads(backend.to_str())
        self._spelt = {token: f"{_MARK}{number}{_MARK}" for number, token in enumerate(special_tokens)}
        added, model = state["added_tokens"], state["model"]
        state["added_tokens"] = [token for token in added if not token["special"]]
        state["post_processor"] = None
        vocab = model["vocab"]  # may have special tokens that its algorithm finds in a text (Unigram's, a list, has)
        if isinstance(vocab, list):
            model["vocab"] = [[self._spelt.get(token, token), score] for token, score in vocab]
        else:
            model["vocab"] = {self._spelt.get(token, token): token_id for token, token_id in vocab.items()}
        model["unk_token"] = self._spelt.get(model.get("unk_token"), model.get("unk_token"))
        self._copy = tokenizers.Tokenizer.from_str(json.dumps(state))
        names = ("single_word", "lstrip", "rstrip", "normalized")
        traits = {token["content"]: {name: token[name] for name in names} for token in added if token["special"]}
        respelt = {spelt: traits.get(token, {}) for token, spelt in self._spelt.items()}
        self._copy.add_special_tokens([tokenizers.AddedToken(s, special=True, **kept) for s, kept in respelt.items()])
        their_id = self._copy.token_to_id
        self._id_of = {their_id(self._spelt[token]): token_id for token, token_id in special_tokens.items()}
        self._id_of.update({their_id(token["content"]): token["id"] for token in state["added_tokens"]})

    def encode(self, parts: Sequence[str]) -> PlacedIds:
        written = [self._spelt[part] if number % 2 else part for number, part in enumerate(parts)]
        with breakdowns_refused():
            encoding = self._copy.encode("".join(written), add_special_tokens=False)
        # where each part that holds anything begins, and the end: a special token holds something under any spelling
        here, there = (np.cumsum([0, *(len(part) for part in texts if part)]) for texts in (written, parts))
        ids = [self._id_of.get(token_id, token_id) for token_id in encoding.ids]
        places = np.interp(np.array(encoding.offsets, dtype=np.float64).reshape(-1, 2), here, there).astype(np.int64)
        return PlacedIds(ids, places[:, 0].tolist(), places[:, 1].tolist())


def _keep_forks_quiet() -> None:
    """Make a forked child (a loader's) encode on one thread without the warning of versions up to 0.22; the parent
    stays parallel, and a value of the user's own is left alone."""
    variable = "TOKENIZERS_PARALLELISM"
    set_here: list[bool] = []

    def before() -> None:
        set_here.append(variable not in os.environ)
        os.environ.setdefault(variable, "false")

    def after_in_parent() -> None:
        if set_here.pop():
            del os.environ[variable]

    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        os.register_at_fork(before=before, after_in_parent=after_in_parent)


_keep_forks_quiet()
