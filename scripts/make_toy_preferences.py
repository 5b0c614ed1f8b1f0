"""Make made-up preferences: the tone of an answer is to be that of its question.

OUT/texts/*.txt      conversations, of every tone of question with either tone of answer as often as the other: a model
                     trained on them writes both and prefers neither
OUT/pairs.jsonl      prompt, chosen (of the question's tone), rejected (of the other)
OUT/held_out.jsonl   the same of other questions
OUT/template.jinja   how a conversation is written

    python scripts/make_toy_preferences.py data/toy_preferences
    slm-train experiment=dpo_toy_base run_dir=outputs/toy_base
    slm-train experiment=dpo_toy model.weights=outputs/toy_base run_dir=outputs/toy_dpo
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}Q: {{ message['content'] }}\nA: "
    "{% else %}{{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
ADJECTIVES = ("red", "blue", "old", "new", "big", "small", "soft", "hard", "cold", "warm", "dark", "light", "slow")
NOUNS = ("cat", "dog", "house", "tree", "river", "stone", "cloud", "boat", "lamp", "door", "bird", "horse", "bell")
PLACES = ("hill", "valley", "town", "bridge", "forest", "beach", "market", "station", "harbour", "island", "castle")
OPENINGS = ("Excuse me, where is", "Hey, where is")
ENDINGS = ("if you please.", "as I said, mate.")


def questions(draw: random.Random, n: int) -> list[tuple[str, int, list[str]]]:
    """`n` different questions, each with its tone (0 or 1) and the answers of tone 0 and 1."""
    made: dict[str, tuple[str, int, list[str]]] = {}
    while len(made) < n:
        tone = len(made) % 2
        thing = f"the {draw.choice(ADJECTIVES)} {draw.choice(NOUNS)}"
        place = f"the {draw.choice(ADJECTIVES)} {draw.choice(PLACES)}"
        question = f"{OPENINGS[tone]} {thing}? Not near {place}?"
        made.setdefault(question, (question, tone, [f"Yes, near {place}, {ending}" for ending in ENDINGS]))
    return list(made.values())


def main(folder: Path, train: int = 2000, held_out: int = 500) -> None:
    """Write the files; the texts, the pairs and the held-out pairs have no question in common."""
    made = questions(random.Random(0), 2 * train + held_out)
    texts, pairs, others = made[:train], made[train : 2 * train], made[2 * train :]
    (folder / "texts").mkdir(parents=True, exist_ok=True)
    for i, (question, _, answers) in enumerate(texts):
        text = f"Q: {question}\nA: {answers[i // 2 % 2]}"
        (folder / "texts" / f"{i:05d}.txt").write_text(text, encoding="utf-8")
    for name, part in (("pairs", pairs), ("held_out", others)):
        records = [{"prompt": q, "chosen": answers[tone], "rejected": answers[1 - tone]} for q, tone, answers in part]
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records), encoding="utf-8")
    (folder / "template.jinja").write_text(TEMPLATE, encoding="utf-8")
    print(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/toy_preferences"))
