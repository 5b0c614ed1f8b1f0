"""The merges of a byte-pair vocabulary of which only the ranks are known, as tiktoken keeps them."""

from __future__ import annotations

from collections.abc import Mapping


def merges_of(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair each token of two bytes or more is merged from, in the order of the tokens' ranks.

    A pair is merged wherever it stands, whatever is around it, and until a token is made no merge reaches
    over its ends; so in every text it is made in the way its own bytes alone are, from one pair only. A
    token that its own bytes do not end in is made in no text: it has no pair here, and can only be a whole
    piece of text (`ignore_merges` in `tokenizers`).
    """
    pairs = (_last_pair(token, ranks) for token in sorted(ranks, key=ranks.__getitem__))
    return [pair for pair in pairs if pair is not None]


def _last_pair(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes] | None:
    """What is left of `token` before its last merge, or None if its bytes do not merge to it."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        known = [(ranks[pair], i) for i in range(len(parts) - 1) if (pair := parts[i] + parts[i + 1]) in ranks]
        if not known:
            return None
        _, i = min(known)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 else None
