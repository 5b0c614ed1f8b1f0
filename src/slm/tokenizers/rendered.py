"""Texts of chat templates in a vocabulary of the Rust library: special tokens where they are meant, and only there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers

from slm.tokenizers.base import breakdowns_refused
from slm.tokenizers.text_bytes import PlacedIds

_MARK = "\ufdd2"  # a Unicode noncharacter: no text holds one


class RenderedEncoder:
    """A copy of a vocabulary in which special tokens are spelt as no text is, so that whatever spells one is text.

    All else is as the library does it: what a special token takes of the spaces around it, what it puts at the start
    of a text or behind a special token. Of `special_tokens`, with their ids, the backend may lack some.
    """

    def __init__(self, backend: tokenizers.Tokenizer, special_tokens: Mapping[str, int]) -> None:
        state = json.loads(backend.to_str())
        self._spelt = {token: f"{_MARK}{number}{_MARK}" for number, token in enumerate(special_tokens)}
        added, model = state["added_tokens"], state["model"]
        state["added_tokens"] = [token for token in added if not token["special"]]
        state["post_processor"] = None
        model["vocab"] = self._respelt(model["vocab"])
        model["unk_token"] = self._spelt.get(model.get("unk_token"), model.get("unk_token"))
        self._copy = tokenizers.Tokenizer.from_str(json.dumps(state))
        traits = {token["content"]: token for token in added if token["special"]}
        self._copy.add_special_tokens([_like(traits.get(token), spelt) for token, spelt in self._spelt.items()])
        their_id = self._copy.token_to_id
        self._id_of = {their_id(self._spelt[token]): token_id for token, token_id in special_tokens.items()}
        self._id_of.update({their_id(token["content"]): token["id"] for token in state["added_tokens"]})

    def _respelt(self, vocab: Any) -> Any:
        """A model's own table, which may have special tokens that its algorithm finds in a text (Unigram's has)."""
        if isinstance(vocab, list):
            return [[self._spelt.get(token, token), score] for token, score in vocab]
        return {self._spelt.get(token, token): token_id for token, token_id in vocab.items()}

    def encode(self, parts: Sequence[str]) -> PlacedIds:
        """As `Tokenizer.encode_parts`."""
        written = [self._spelt[part] if number % 2 else part for number, part in enumerate(parts)]
        with breakdowns_refused():
            encoding = self._copy.encode("".join(written), add_special_tokens=False)
        # where each part that holds anything begins, and the end: a special token holds something under any spelling
        here, there = (np.cumsum([0, *(len(part) for part in texts if part)]) for texts in (written, parts))
        ids = [self._id_of.get(token_id, token_id) for token_id in encoding.ids]
        places = np.interp(np.array(encoding.offsets, dtype=np.float64).reshape(-1, 2), here, there).astype(np.int64)
        return PlacedIds(ids, places[:, 0].tolist(), places[:, 1].tolist())


def _like(traits: Mapping[str, bool] | None, spelling: str) -> tokenizers.AddedToken:
    kept = {name: traits[name] for name in ("single_word", "lstrip", "rstrip", "normalized")} if traits else {}
    return tokenizers.AddedToken(spelling, special=True, **kept)
