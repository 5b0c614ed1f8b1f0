"""What a token store is made of, for people and programs: ``data_card.json`` and a README beside the tokens."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CARD_FILE = "data_card.json"
README_FILE = "README.md"
_SOURCES_SHOWN = 20


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write both files."""
    (folder / CARD_FILE).write_text(json.dumps(card, indent=1, ensure_ascii=False), encoding="utf-8")
    (folder / README_FILE).write_text(_readme(card), encoding="utf-8")


def summary_lines(card: Mapping[str, Any]) -> list[str]:
    """The card in a few lines."""
    train, val = card["train"], card["val"]
    lines = [
        f"{split:<10} {of['tokens']:,} tokens, {of['documents']:,} document(s), {of['bytes']:,} bytes"
        for split, of in (("training", train), ("validation", val))
    ]
    lines.append(f"tokenizer  {card['tokenizer']['kind']}, {card['bytes_per_token']:.3f} bytes a token")
    left_out = [f"{reason.replace('_', ' ')}: {n:,}" for reason, n in card["dropped"].items() if n]
    if left_out:
        lines.append(f"left out   {', '.join(left_out)} document(s)")
    return lines


def _readme(card: Mapping[str, Any]) -> str:
    rows = [
        f"| `{one['name']}` | {'' if one['bytes'] is None else format(one['bytes'], ',')} | {one['documents']:,} "
        f"| {(one['sha256'] or '')[:16]} |"
        for one in card["sources"][:_SOURCES_SHOWN]
    ]
    more = len(card["sources"]) - len(rows)
    faults = [
        f"- {kind}: {found['count']:,} (the first: {', '.join(found['places'])})"
        for kind, found in card["faults"].items()
    ]
    return "\n".join(
        [
            "# A token store",
            "",
            "Made by `slm-prepare`; train on it with `slm-train data=prepared data.path=` and this folder.",
            "",
            *(f"    {line}" for line in summary_lines(card)),
            "",
            *(["Faults in the text:", "", *faults, ""] if faults else []),
            "| source | bytes | documents | sha256 |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            *([f"{more:,} more are in {CARD_FILE}.", ""] if more > 0 else []),
        ]
    )
