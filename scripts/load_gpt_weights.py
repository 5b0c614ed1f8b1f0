"""GPT-2 in TensorFlow's files to a model bundle: `slm-convert format=gpt2_tf to=slm` under its known name.

python scripts/load_gpt_weights.py source=gpt2-124m|FOLDER out=models/gpt2
"""

from __future__ import annotations

import sys

from slm.cli import convert

if __name__ == "__main__":
    sys.argv[1:] = ["format=gpt2_tf", "to=slm", *sys.argv[1:]]
    convert.main()
