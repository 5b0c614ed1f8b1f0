"""Make instructions that a small model can learn: sort the letters of a word, reverse it, add two numbers.

    python scripts/make_toy_instructions.py FOLDER

writes 5,000 pairs to FOLDER/train.jsonl and 500 to FOLDER/held_out.jsonl; no prompt is in both. Words are 3 to 8 random
letters; numbers have 1 to 3 digits and are written with leading zeros, sums with 4. The same seed makes the same files.
"""

from __future__ import annotations

import argparse
import json
import random
import string
from collections.abc import Callable, Mapping
from pathlib import Path

Pair = tuple[str, str]


def sort_letters(draw: random.Random) -> Pair:
    """A word, and its letters in the alphabet's order."""
    word = _word(draw)
    return f"sort {word}", "".join(sorted(word))


def reverse_word(draw: random.Random) -> Pair:
    """A word, and the same from its end."""
    word = _word(draw)
    return f"reverse {word}", word[::-1]


def add_numbers(draw: random.Random) -> Pair:
    """Two numbers below 1,000, and their sum."""
    a, b = (draw.randrange(10 ** draw.randint(1, 3)) for _ in range(2))
    return f"add {a:03d} {b:03d}", f"{a + b:04d}"


# Sorting takes the most examples to learn, reversing the fewest; what is held out is even.
TASKS: Mapping[Callable[[random.Random], Pair], int] = {sort_letters: 2200, reverse_word: 1200, add_numbers: 1600}
HELD_OUT = 500


def make_pairs(seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs, each part shuffled; a prompt is in one of them, once."""
    draw = random.Random(seed)
    train: list[Pair] = []
    held_out: list[Pair] = []
    for place, (task, n_train) in enumerate(TASKS.items()):
        n_held_out = HELD_OUT // len(TASKS) + (place < HELD_OUT % len(TASKS))
        pairs: dict[str, str] = {}
        while len(pairs) < n_train + n_held_out:
            prompt, response = task(draw)
            pairs[prompt] = response
        made = list(pairs.items())
        held_out += made[:n_held_out]
        train += made[n_held_out:]
    draw.shuffle(train)
    draw.shuffle(held_out)
    return train, held_out


def _word(draw: random.Random) -> str:
    return "".join(draw.choices(string.ascii_lowercase, k=draw.randint(3, 8)))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in zip(("train", "held_out"), make_pairs(arguments.seed), strict=True):
        lines = [json.dumps({"prompt": prompt, "response": response}) + "\n" for prompt, response in pairs]
        (arguments.folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{arguments.folder / name}.jsonl: {len(pairs):,} pairs")


if __name__ == "__main__":
    main()
