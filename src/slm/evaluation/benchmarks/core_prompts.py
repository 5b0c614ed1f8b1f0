"""How CORE asks: examples ahead of an item, and which tokens of each prompt are scored (Li et al. 2024, DCLM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from slm.errors import UserError
from slm.evaluation.reader import Reader
from slm.scoring.token_scores import ScoreRequest

KINDS = {
    "multiple_choice": ("query", "choices", "gold"),
    "schema": ("context_options", "continuation", "gold"),
    "language_modeling": ("context", "continuation"),
}
"""What an item of each kind has."""


class Option(NamedTuple):
    """What is read ahead, and what is scored."""

    context: str
    continuation: str


def options(kind: str, item: Mapping[str, Any], delimiter: str) -> list[Option]:
    """The ways in which an item goes on: of ``multiple_choice`` a query's choices, of ``schema`` one continuation after
    several contexts, of ``language_modeling`` the only one. Each ends its context with the delimiter."""
    if kind == "multiple_choice":
        return [Option(item["query"] + delimiter, choice) for choice in item["choices"]]
    if kind == "schema":
        return [Option(context + delimiter, item["continuation"]) for context in item["context_options"]]
    return [Option(item["context"].strip() + delimiter, item["continuation"])]


def with_examples(
    examples: Sequence[tuple[str, Mapping[str, Any]]], asked: list[Option], delimiter: str
) -> list[Option]:
    """`asked` behind right answers to other items, (kind, item) each, with an empty line between."""
    ahead = "".join("".join(options(kind, item, delimiter)[item.get("gold", 0)]) + "\n\n" for kind, item in examples)
    return [Option(ahead + context, continuation) for context, continuation in asked]


def requests(kind: str, asked: Sequence[Option], reader: Reader) -> list[ScoreRequest]:
    """What is scored of each option: of choices all behind what their prompts begin with alike, of contexts all that
    their prompts end with alike, of a continuation the tokens that its context alone has not. What is longer than the
    model loses its beginning. `UserError` where a context's tokens are not those that it has with its continuation."""
    begin = [reader.spelled.begin_id]
    whole = [[*begin, *reader.spelled.ids("".join(option))] for option in asked]
    if kind == "language_modeling":
        bare = [*begin, *reader.spelled.ids(asked[0].context.strip())]
        if whole[0][: len(bare)] != bare or len(bare) == len(whole[0]):
            raise UserError("core: the vocabulary joins the end of a context to its continuation, which none can score")
        cuts = [len(bare)]
    elif kind == "multiple_choice":
        cuts = [_alike(whole)] * len(whole)
    else:
        suffix = _alike([ids[::-1] for ids in whole])
        cuts = [len(ids) - suffix for ids in whole]
    return [ScoreRequest(*_last(ids, cut, reader.longest)) for ids, cut in zip(whole, cuts, strict=True)]


def _alike(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all begin with."""
    shortest = min(map(len, sequences))
    first = sequences[0]
    return next((n for n in range(shortest) if any(ids[n] != first[n] for ids in sequences)), shortest)


def _last(ids: list[int], cut: int, longest: int) -> tuple[list[int], list[int]]:
    """Context and continuation, of so many last tokens as the published code reads: the last one counted too."""
    start = max(0, len(ids) - longest)
    return ids[min(start, cut) : cut], ids[max(cut, start) :]
