"""What a token store is made of, for people and programs: ``data_card.json`` and a README beside the tokens."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from slm.data.config import PART_NAMES
from slm.data.store.source_table import table_lines

CARD_FILE = "data_card.json"
README_FILE = "README.md"


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write both files."""
    (folder / CARD_FILE).write_text(json.dumps(card, indent=1, ensure_ascii=False), encoding="utf-8")
    template = Path(__file__).with_name("data_card.md.jinja").read_text(encoding="utf-8")
    readme = jinja2.Template(template, trim_blocks=True).render(**card, lines=summary_lines(card))
    (folder / README_FILE).write_text(readme, encoding="utf-8")


def summary_lines(card: Mapping[str, Any]) -> list[str]:
    """The card in a few lines, the sources first."""
    lines = [
        *(table_lines(rows) if (rows := card.get("table")) else []),
        *(
            f"{name:<10} {of['tokens']:,} tokens, {of['documents']:,} document(s), {of['bytes']:,} bytes"
            for split, name in PART_NAMES.items()
            if (of := card.get(split))
        ),
    ]
    lines.append(f"tokenizer  {card['tokenizer']['kind']}, {card['bytes_per_token']:.3f} bytes a token")
    left_out = [f"{reason.replace('_', ' ')}: {n:,}" for reason, n in card["dropped"].items() if n]
    if left_out:
        lines.append(f"left out   {', '.join(left_out)} document(s)")
    return lines
