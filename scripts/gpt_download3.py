"""Download GPT-2 as OpenAI released it.

    python scripts/gpt_download3.py 124M [FOLDER] [--mirror URL]

Sizes: 124M, 355M, 774M, 1558M. Prints the folder. `slm-convert source=gpt2-124m out=…` does this and converts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from slm.cli.command import fail
from slm.errors import UserError
from slm.weights.openai_release import RELEASES, fetch_release


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=[name.removeprefix("gpt2-").upper() for name in RELEASES])
    parser.add_argument("folder", nargs="?", type=Path, help="where to put it; default the cache")
    parser.add_argument("--mirror", help="base URL in place of OpenAI's")
    options = parser.parse_args()
    try:
        print(fetch_release(f"gpt2-{options.size.lower()}", options.folder, options.mirror))
    except UserError as error:
        fail(str(error))


if __name__ == "__main__":
    main()
