"""A small set of instructions to try fine-tuning with, into data/sft: `slm-crawl` under a known name.

    python scripts/sample_instruction_data.py [url=…] [category=…] [filename=…] [key=value …]

By default the 1,100 instructions that come with the book "Build a Large Language Model (From Scratch)".
"""

from __future__ import annotations

import sys

from slm.cli import crawl

URL = "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch07/01_main-chapter-code/instruction-data.json"

if __name__ == "__main__":
    sys.argv[1:] = [f"url={URL}", "category=sft", "filename=instruction-data.json", *sys.argv[1:]]
    crawl.main()
