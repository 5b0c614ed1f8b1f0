"""Five tasks in lm-eval's YAML, of all kinds of requests, over files beside them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

_WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "that",
    "one",
    "dog",
    "run",
    "from",
    "its",
    "old",
    "house",
    "while",
    "naïve",
    "birds",
    "flew",
    "home",
    "again",
]
_CHOICE = """output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: gold
num_fewshot: 1
fewshot_split: validation
metric_list:
- {metric: acc}
- {metric: acc_norm}
"""
_LAST_WORD = """output_type: loglikelihood
doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"
doc_to_target: "{{' ' + text.split(' ')[-1]}}"
metric_list:
- {metric: perplexity}
- {metric: acc}
"""
_PAGES = """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{page}}"
metric_list:
- {metric: word_perplexity}
- {metric: bits_per_byte}
"""
_WRITTEN = """output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n", "house"], max_gen_toks: 12, do_sample: false}
metric_list:
- {metric: exact_match}
"""
TASKS = {"choose": _CHOICE, "last_word": _LAST_WORD, "pages": _PAGES, "write": _WRITTEN, "chat": _WRITTEN}


def write_tasks(folder: Path, n: int = 8) -> Path:
    """A folder for ``include_path``, with `n` items a task."""
    draw = random.Random(7)

    def text(most: int) -> str:
        return " ".join(draw.choices(_WORDS, k=draw.randint(3, most)))

    def item() -> dict[str, Any]:
        choices = [text(4) for _ in range(3)]
        return {
            "question": text(9),
            "choices": choices,
            "gold": draw.randrange(3),
            "text": text(9),
            "page": text(40),
        } | {"answer": draw.choice(_WORDS)}

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "items.jsonl"
    file.write_text("".join(json.dumps(item()) + "\n" for _ in range(n)), encoding="utf-8")
    for name, asked in TASKS.items():
        head = f"task: slm_{name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{validation: {file}}}}}\n"
        (folder / f"{name}.yaml").write_text(f"{head}validation_split: validation\n{asked}", encoding="utf-8")
    return folder
